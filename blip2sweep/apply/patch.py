"""Puts recipes into a model. From one cell to the next only the layers that differ are exchanged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor, nn

from blip2sweep.cache.tensors import Memo
from blip2sweep.canonical import canonical_json, digest
from blip2sweep.compression.quantize.layer import exchange
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.compression.step import DROP, QUANTIZE, step
from blip2sweep.compression.undo import Undo
from blip2sweep.models.load import Loaded
from blip2sweep.models.part import Linear
from blip2sweep.recipe import Recipe

Made = Mapping[str, Mapping[str, object]]  # {kind of step: {path: what was measured or trained for the site}}


@dataclass(frozen=True, eq=False)
class Applied:
    """A model with a recipe in it. Leaving it as a context, or `restore()`, puts the original weights back.

    layers: paths of the quantized layers. changed: paths of those that differ in a bit from the originals, and of the
    layers that further steps change. written, recalled: of the layers that were exchanged, how many were computed and
    how many were remembered.
    """

    patch: Patch
    layers: tuple[str, ...]
    changed: frozenset[str]
    written: int
    recalled: int

    @property
    def layers_changed(self) -> int:
        return len(self.changed)

    def restore(self) -> None:
        """Put the original weights back. A second call does nothing."""
        self.patch.restore()

    def __enter__(self) -> Applied:
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()


def apply(loaded: Loaded, recipe: Recipe) -> Applied:
    """Put a recipe into a model once, as `Patch.apply` does."""
    return Patch(loaded).apply(recipe)


@dataclass(eq=False)
class _Layer:
    """A quantized layer of the model: its scheme, how to take it back, and whether a bit differs."""

    scheme: Scheme
    key: str | None  # `Prepared.key` of what calibration made of it
    undo: Undo = field(default_factory=Undo)
    changed: bool = False


class Patch:
    """Puts recipes into a model. The originals are never written to, so `restore` is bit for bit.

    The first quantization is kept layer by layer, so the next recipe exchanges only the layers that differ. Steps
    before it lie under the layers, later steps lie over them. Where a step changes, what lies over it is taken back
    first.

    memo: quantized weights by (module, scheme), for recipes that share layers.
    """

    def __init__(self, loaded: Loaded, memo: Memo | None = None) -> None:
        self.loaded, self.memo = loaded, memo
        self._modules = {path: m for path, m in loaded.model.named_modules() if isinstance(m, nn.Linear)}
        self._everything = [x.path for part in loaded.anatomy.parts.values() for x in part.linears]
        self._under, self._over = Undo(), Undo()
        self._before: str | None = None  # the name of the steps under the layers
        self._of_weights: str | None = None  # the same where these change weights; dropping blocks does not
        self._now: dict[str, _Layer] = {}
        self.last: Applied | None = None  # what is in the model as `apply` left it

    def apply(
        self, recipe: Recipe, prepared: Mapping[str, Prepared] | None = None, made: Made | None = None
    ) -> Applied:
        """Put a recipe into the model. It is computed in float32 and cast back to each layer's dtype.

        prepared: {path: what calibration made of the layer} (blip2sweep/apply/calibration) for quantization. made: the
        same for the other kinds of steps, and what recovery trained (blip2sweep/apply/recovery).

        Raises FloatingPointError naming a layer whose weights would not be finite, RuntimeError where the layers that
        differ are not those of the recipe, and UserError for a layer that device_map left off the device. The model is
        then as it was loaded.
        """
        ready, others = prepared or {}, made or {}
        self.last = None
        try:
            self._over.back()
            self._lay_under(recipe, others)
            written, recalled = self._layers(recipe, ready)
            self._lay_over(recipe, others)
        except BaseException:
            self.restore()
            raise
        layers = tuple(path for path in self._everything if path in self._now)
        changed = recipe.layers_of_further_steps | {path for path, now in self._now.items() if now.changed}
        self.last = Applied(self, layers, changed, written, recalled)
        return self.last

    def put(self, layers: Iterable[tuple[Linear, Scheme]], prepared: Mapping[str, Prepared]) -> int:
        """Quantize further layers. Those that are quantized already stay as they are.

        Returns how many of the new ones were remembered.
        """
        new = [(x, scheme) for x, scheme in layers if x.path not in self._now]
        return sum(self._put(x, scheme, prepared.get(x.path)) for x, scheme in new)

    def restore(self) -> None:
        """Put the original tensors back. A second call does nothing."""
        self.last = None
        self._over.back()
        for path in reversed(list(self._now)):
            self._take_back(path)
        self._under.back()
        self._before = self._of_weights = None

    @property
    def over(self) -> Undo:
        """For changes over the layers. The next recipe takes them back."""
        return self._over

    def __enter__(self) -> Patch:
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()

    # ---- layers

    def _layers(self, recipe: Recipe, ready: Mapping[str, Prepared]) -> tuple[int, int]:
        """(written, recalled): exchange the layers that differ from those of the recipe's first quantization."""
        wanted = {x.path: (x, scheme) for x, scheme in _first_quantization(recipe)}
        before = {path: self._pointer(path) for path in self._everything if path not in self._now}
        for path in [p for p in self._now if p not in wanted or not self._same(p, wanted[p][1], ready.get(p))]:
            self._take_back(path)
            before[path] = self._pointer(path)
        there = len(self._now)
        recalled = self.put(wanted.values(), ready)
        self._check(before, set(wanted))
        return len(self._now) - there - recalled, recalled

    def _same(self, path: str, scheme: Scheme, ready: Prepared | None) -> bool:
        now = self._now[path]
        return now.scheme == scheme and now.key == (ready.key if ready else None)

    def _pointer(self, path: str) -> int:
        return self._modules[path].weight.data_ptr()

    def _take_back(self, path: str) -> None:
        self._now[path].undo.back()
        del self._now[path]

    def _check(self, before: dict[str, int], wanted: set[str]) -> None:
        """Raise RuntimeError unless the layers whose storage was exchanged are exactly the recipe's.

        before: {path: data pointer} of the layers that were not quantized.
        """
        moved = {path for path, pointer in before.items() if self._pointer(path) != pointer}
        found = moved | (self._now.keys() - before.keys())
        if found != wanted or self._now.keys() != wanted:
            raise RuntimeError(f"layers written differ from the recipe: {sorted(found ^ wanted)[:5]} …")

    def _put(self, layer: Linear, scheme: Scheme, ready: Prepared | None) -> bool:
        """Exchange one layer's values. Returns whether they were remembered."""
        module = self._modules[layer.path]
        now = self._now[layer.path] = _Layer(scheme, ready.key if ready else None)
        originals = [p.data for p in (module.weight, module.bias) if p is not None]
        calibrated = ready is not None and ready.has_weight
        name = weights_key(layer, scheme, self._of_weights)
        found = None if calibrated or self.memo is None else self.memo.get(name)
        values = exchange(layer.path, module, scheme, now.undo, ready, found)
        now.changed = _differ(originals, values)
        if found is None and not calibrated and self.memo is not None:
            self.memo.put(name, values)
        return found is not None

    # ---- the steps under and over them

    def _lay_under(self, recipe: Recipe, made: Made) -> None:
        name = None if recipe.before.empty else _name(recipe.before, made)
        if name != self._before:
            self.restore()
            self._steps(recipe, range(len(recipe.before.kinds)), self._under, made)
            self._before = name
            self._of_weights = name if recipe.before.further - {DROP} else None

    def _lay_over(self, recipe: Recipe, made: Made) -> None:
        first = len(recipe.before.kinds)
        quantized = recipe.kinds[first : first + 1] == (QUANTIZE,)
        self._steps(recipe, range(first + quantized, len(recipe.kinds)), self._over, made)

    def _steps(self, recipe: Recipe, which: Iterable[int], undo: Undo, made: Made) -> None:
        for i in which:
            pairs, kind = recipe.step(i), recipe.kinds[i]
            if pairs:
                before = {path: self._pointer(path) for path in self._everything}
                step(kind).apply(self.loaded.model, pairs, undo, made.get(kind, {}))
                self._check_inside(recipe, i, before)

    def _check_inside(self, recipe: Recipe, i: int, before: Mapping[str, int]) -> None:
        """Raise RuntimeError where a step changed weights outside its own sites."""
        moved = {path for path, pointer in before.items() if self._pointer(path) != pointer}
        outside = moved - recipe.layers_of(i)
        if outside:
            raise RuntimeError(f"layers written differ from the recipe: {sorted(outside)[:5]} …")


def _name(before: Recipe, made: Made) -> str:
    """The name of the steps that lie under the layers: other measurements of one recipe are another name."""
    keys = [x.key for kind in before.kinds for x in made.get(kind, {}).values() if isinstance(x, Prepared)]
    return digest([before.hash, sorted(keys)]) if keys else before.hash


def _first_quantization(recipe: Recipe) -> Iterable[tuple[Linear, Scheme]]:
    n = len(recipe.before.kinds)
    pairs = recipe.step(n) if recipe.kinds[n : n + 1] == (QUANTIZE,) else ()
    return ((x, s) for x, s in pairs if isinstance(x, Linear) and isinstance(s, Scheme))


def weights_key(layer: Linear, scheme: Scheme, before: str | None) -> str:
    """The name of a layer's quantized weights. before: the name of the steps that change weights under it."""
    return _weights_key(layer.path, scheme, before)


@lru_cache(maxsize=65536)
def _weights_key(path: str, scheme: Scheme, before: str | None) -> str:
    return canonical_json([path, scheme.as_dict(), *([before] if before else [])])


def _differ(before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
    """Whether a bit differs."""
    pairs = zip(before, after, strict=False)  # a bias that was not exchanged does not differ
    return any(not torch.equal(_bits(x), _bits(y.to(x.device))) for x, y in pairs)


def _bits(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.uint8)
