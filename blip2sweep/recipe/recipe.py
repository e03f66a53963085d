"""A recipe, resolved: `{module path: scheme}`, kept part by part so that a grid shares the work of its parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from blip2sweep.canonical import digest
from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.models.anatomy import Linear, Part
from blip2sweep.recipe.folds import said_once


@dataclass(frozen=True, eq=False)
class PartRecipe:
    """Schemes of one part's linears, in the anatomy's order (None: left alone), and the config keys that made them."""

    part: Part
    schemes: tuple[Scheme | None, ...]
    used: frozenset[str] = frozenset()

    def touched(self) -> Iterator[tuple[Linear, Scheme]]:
        return ((x, s) for x, s in zip(self.part.linears, self.schemes, strict=True) if s)

    @cached_property
    def empty(self) -> bool:
        return not any(self.schemes)

    @cached_property
    def methods(self) -> frozenset[str]:
        return frozenset(s.weights.method for _, s in self.touched())

    @cached_property
    def hash(self) -> str:
        """sha256 over the full map {module path: scheme}, however it was written."""
        return digest(said_once(self))


@dataclass(frozen=True, eq=False)
class Recipe:
    """What a cell does to the model, and the config keys that chose its parts."""

    parts: dict[str, PartRecipe]
    chosen_by: frozenset[str] = frozenset()

    def touched(self) -> Iterator[tuple[Linear, Scheme]]:
        """(layer, scheme) of every layer that is touched, parts in the model's order."""
        for part in self.parts.values():
            yield from part.touched()

    @property
    def schemes(self) -> dict[str, Scheme]:
        """{module path: scheme}."""
        return {x.path: s for x, s in self.touched()}

    @cached_property
    def empty(self) -> bool:
        return all(p.empty for p in self.parts.values())

    @cached_property
    def used(self) -> frozenset[str]:
        """Config keys that determined the recipe (`part` alone for `part=none`, never `part` beside a recipe file)."""
        return self.chosen_by.union(*(p.used for p in self.parts.values()))

    @cached_property
    def hash(self) -> str:
        """sha256 over the hashes of the parts that are touched; the same for every spelling of one recipe, whatever the
        parts are called and in whatever order the config names them."""
        return digest(sorted([p.part.stage, p.hash] for p in self.parts.values() if not p.empty))
