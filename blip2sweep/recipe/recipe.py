"""A resolved recipe: the entries of its steps, in order. It is kept part by part, so that the cells of a grid share the
work of parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

from blip2sweep.canonical import digest
from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.compression.step import (
    DROP,
    QUANTIZE,
    RECOVER,
    STEPS,
    Entries,
    Pair,
    Site,
    Spec,
    SpecFields,
    layers_in,
    step,
)
from blip2sweep.models.part import Linear, Part

STEPS_KEY = "@steps"  # beside module paths, none of which begins with @

RecipeIdentity = dict[str, object]


@dataclass(frozen=True, eq=False)
class PartRecipe:
    """What the steps of a recipe do to one part, in their order. All parts of a recipe have the same steps."""

    part: Part
    steps: tuple[Entries, ...] = ()

    @cached_property
    def layers(self) -> tuple[tuple[Linear, Scheme], ...]:
        """(layer, scheme) of every layer that is quantized, in the anatomy's order. What is quantized twice is there once."""
        pairs = (pair for s in self.steps if s.kind == QUANTIZE for pair in s.pairs)
        typed = {x.path: (x, s) for x, s in pairs if isinstance(x, Linear) and isinstance(s, Scheme)}
        return tuple(typed.values())

    def touched(self) -> Iterator[tuple[Linear, Scheme]]:
        """An iterator over `layers`."""
        return iter(self.layers)

    @cached_property
    def dropped(self) -> frozenset[int]:
        """The numbers of the blocks that are left out."""
        return frozenset(site.block for site, _ in self.pairs_of(DROP))

    @cached_property
    def left(self) -> Part:
        """The part without the layers of dropped blocks: what all other steps see."""
        return self.part.without(self.dropped)

    def layers_in(self, kind: str, site: Site) -> Iterator[Linear]:
        """The linear layers that a step of a kind changes in a site."""
        return layers_in(self.part if kind == DROP else self.left, site)

    @cached_property
    def touched_blocks(self) -> frozenset[int]:
        """The numbers of the blocks in which any step changes something."""
        return frozenset(x.block for s in self.steps for site, _ in s.pairs for x in self.layers_in(s.kind, site))

    @cached_property
    def used(self) -> frozenset[str]:
        """The config keys that made it."""
        return frozenset().union(*(s.used for s in self.steps))

    @cached_property
    def empty(self) -> bool:
        return not any(s.pairs for s in self.steps)

    @cached_property
    def methods(self) -> frozenset[str]:
        return frozenset(s.weights.method for _, s in self.layers)

    @cached_property
    def identities(self) -> tuple[tuple[str, Mapping[str, SpecFields]], ...]:
        """(kind, {path of a site: spec}) of each step, as keys have it."""
        return tuple((s.kind, _identity(self.part, s) if s.pairs else {}) for s in self.steps)

    @cached_property
    def hash(self) -> str:
        """sha256 over the full map {path of a site: spec}. It is the same for every spelling."""
        return digest(joined(self.identities))

    def requantized(self, change: Callable[[Linear, Scheme], Scheme | None]) -> PartRecipe:
        """The same with other schemes.

        change(layer, scheme): the new scheme, or None for a layer that is left alone.
        """
        return PartRecipe(self.part, tuple(_changed(s, change) if s.kind == QUANTIZE else s for s in self.steps))

    def measured_on(self, kind: str, digest: str) -> PartRecipe:
        """The same with the name of what the specs of one kind of step are measured on."""
        return PartRecipe(self.part, tuple(_measured(s, digest) if s.kind == kind else s for s in self.steps))

    def pairs_of(self, kind: str) -> tuple[Pair, ...]:
        """The pairs of all steps of a kind."""
        return tuple(pair for s in self.steps if s.kind == kind for pair in s.pairs)

    def only(self, wanted: Callable[[str], bool]) -> PartRecipe:
        """The same with only those steps whose kind is `wanted`."""
        return PartRecipe(self.part, tuple(s for s in self.steps if wanted(s.kind)))

    def where(self, wanted: Callable[[Spec], bool]) -> PartRecipe:
        """The same with only those pairs whose spec is `wanted`."""
        kept = (
            Entries(s.kind, tuple((site, spec) for site, spec in s.pairs if wanted(spec)), s.used) for s in self.steps
        )
        return PartRecipe(self.part, tuple(kept))


_IDENTITIES: WeakKeyDictionary[Entries, Mapping[str, SpecFields]] = WeakKeyDictionary()


def _identity(part: Part, entries: Entries) -> Mapping[str, SpecFields]:
    """The identity of one step of a part. The recipes of a grid share their steps, so each is asked once."""
    if entries not in _IDENTITIES:
        _IDENTITIES[entries] = step(entries.kind).identity(part, entries.pairs)
    return _IDENTITIES[entries]


def _changed(entries: Entries, change: Callable[[Linear, Scheme], Scheme | None]) -> Entries:
    typed = ((x, s) for x, s in entries.pairs if isinstance(x, Linear) and isinstance(s, Scheme))
    pairs = ((x, change(x, s)) for x, s in typed)
    return Entries(entries.kind, tuple((x, s) for x, s in pairs if s is not None), entries.used)


def _measured(entries: Entries, digest: str) -> Entries:
    pairs = tuple((site, spec.measured_on(digest)) for site, spec in entries.pairs)
    return Entries(entries.kind, pairs, entries.used)


def joined(steps: Iterable[tuple[str, Mapping[str, SpecFields]]]) -> RecipeIdentity:
    """The identities of steps as one map, as hashes have it.

    Quantization's is flat: {module path: scheme}. Where there are other steps, `@steps` lists all of them in order, and
    quantization there by its name alone. So a recipe that only quantizes has the hash it had before there were steps.
    """
    there = [(kind, specs) for kind, specs in steps if specs]
    flat = next((i for i, (kind, _) in enumerate(there) if kind == QUANTIZE), None)
    named = [[kind] if i == flat else [kind, specs] for i, (kind, specs) in enumerate(there)]
    own: RecipeIdentity = {} if flat is None else dict(there[flat][1])
    return own if named in ([], [[QUANTIZE]]) else {**own, STEPS_KEY: named}


@dataclass(frozen=True, eq=False)
class Recipe:
    """What a cell does to the model, and the config keys that chose its parts."""

    parts: dict[str, PartRecipe]
    chosen_by: frozenset[str] = frozenset()

    @classmethod
    def untouched(cls, parts: Mapping[str, Part]) -> Recipe:
        """The recipe that leaves these parts alone."""
        return cls({name: PartRecipe(part) for name, part in parts.items()})

    def touched(self) -> Iterator[tuple[Linear, Scheme]]:
        """(layer, scheme) of every layer that is quantized, parts in the model's order."""
        for part in self.parts.values():
            yield from part.layers

    @property
    def schemes(self) -> dict[str, Scheme]:
        """{module path: scheme}."""
        return {x.path: s for x, s in self.touched()}

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of the steps, in order."""
        known = {tuple(s.kind for s in p.steps) for p in self.parts.values() if p.steps}
        assert len(known) <= 1, f"parts have different steps: {known}"
        return next(iter(known), ())

    def step(self, i: int) -> tuple[Pair, ...]:
        """The pairs of the i-th step, parts in the model's order."""
        return tuple(pair for p in self.parts.values() if p.steps for pair in p.steps[i].pairs)

    def layers_of(self, i: int) -> frozenset[str]:
        """The paths of the linear layers in the sites of the i-th step."""
        parts = [p for p in self.parts.values() if p.steps]
        kind = self.kinds[i]
        return frozenset(x.path for p in parts for site, _ in p.steps[i].pairs for x in p.layers_in(kind, site))

    @cached_property
    def layers_of_further_steps(self) -> frozenset[str]:
        return frozenset().union(*(self.layers_of(i) for i, kind in enumerate(self.kinds) if kind != QUANTIZE))

    @property
    def further(self) -> frozenset[str]:
        """The kinds of the steps that do something, without quantization."""
        steps = (s for p in self.parts.values() for s in p.steps)
        return frozenset(s.kind for s in steps if s.pairs and s.kind != QUANTIZE)

    @property
    def dropped_paths(self) -> list[str]:
        """The module paths of the blocks that are dropped."""
        return [site.path for p in self.parts.values() for site, _ in p.pairs_of(DROP)]

    @property
    def outside(self) -> frozenset[str]:
        """The kinds of its steps that are no part of this package: recipe files have no place for them."""
        return self.further - STEPS.keys()

    @cached_property
    def before(self) -> Recipe:
        """The steps before the first quantization, or before recovery: they are in the model while it is calibrated."""
        return self.until(QUANTIZE, RECOVER)

    def until(self, *kinds: str) -> Recipe:
        """The steps before the first one of these kinds; all where there is none."""
        n = next((i for i, kind in enumerate(self.kinds) if kind in kinds), len(self.kinds))
        return Recipe({name: PartRecipe(p.part, p.steps[:n]) for name, p in self.parts.items()})

    def only(self, kind: str) -> Recipe:
        """The steps of one kind."""
        return Recipe({name: p.only(kind.__eq__) for name, p in self.parts.items()})

    @cached_property
    def empty(self) -> bool:
        return all(p.empty for p in self.parts.values())

    @cached_property
    def used(self) -> frozenset[str]:
        """The config keys that determined the recipe.

        For `part=none` that is `part` alone; beside a recipe file it is never `part`.
        """
        return self.chosen_by.union(*(p.used for p in self.parts.values()))

    @cached_property
    def hash(self) -> str:
        """sha256 over the hashes of the touched parts. It is the same for every spelling of one recipe.

        The names of parts and their order in the config do not matter.
        """
        return digest(sorted([p.part.stage, p.hash] for p in self.parts.values() if not p.empty))
