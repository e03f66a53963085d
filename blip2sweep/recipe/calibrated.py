"""Which layers of a recipe are measured, and the digest of what they are measured on, put into their schemes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol

from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.errors import UserError
from blip2sweep.recipe.folds import folds_read
from blip2sweep.recipe.recipe import PartRecipe, Recipe


def calibrates(scheme: Scheme) -> bool:
    """Whether the method, or a static range of the inputs, needs calibration samples."""
    inputs = scheme.input_activations
    return bool(METHODS[scheme.weights.method].calibrates) or (inputs is not None and not inputs.dynamic)


@lru_cache(maxsize=65536)
def part_calibrates(part: PartRecipe) -> bool:
    return any(calibrates(s) for s in set(part.schemes) - {None} if s is not None)


class Digest(Protocol):
    """The name of what a part is measured on: `Calibration.digest`."""

    def __call__(self, tells_tokens_apart: bool, before: Sequence[str], deep: bool, reads: Any) -> str: ...


def stamped(recipe: Recipe, digest: Digest) -> Recipe:
    """The recipe with `calibration` in the schemes that are measured: a digest of the samples, of the recipes of the
    touched parts computed before, and of what the methods read of the anatomy."""
    parts: dict[str, PartRecipe] = {}
    for name, part in recipe.parts.items():
        before = [p.hash for p in parts.values() if not p.empty]
        parts[name] = _stamped(part, _digest(part, before, digest)) if part_calibrates(part) else part
    return Recipe(parts, recipe.chosen_by)


def _digest(part: PartRecipe, before: Sequence[str], digest: Digest) -> str:
    return digest(part.part.reads_text, before, _deep(part), folds_read(part))


@lru_cache(maxsize=65536)
def _deep(part: PartRecipe) -> bool:
    """Whether layers of more than one block are touched: those of one block are measured together."""
    return len({x.block for x, _ in part.touched()}) > 1


@lru_cache(maxsize=65536)
def _packs(part: PartRecipe) -> bool:
    return any(s.weights.packed for _, s in part.touched())


@lru_cache(maxsize=65536)
def _behind_packed(part: PartRecipe) -> bool:
    """Whether a layer is measured in a later block than a packed one."""
    packed = [x.block for x, s in part.touched() if s.weights.packed]
    measured = [x.block for x, s in part.touched() if calibrates(s)]
    return bool(packed and measured) and min(packed) < max(measured)


def check_upstream(recipe: Recipe, upstream: str) -> None:
    """Raise UserError where a packed layer would stand before one that is measured: calibration cannot run it."""
    before = False
    for part in recipe.parts.values():
        across = before and upstream == "model" and part_calibrates(part)
        if across or (upstream != "full" and _behind_packed(part)):
            raise UserError(
                f"calibration.upstream={upstream}: {part.part.name} is measured behind packed layers, which stay in full "
                f"precision while it is; right: calibration.upstream=full, or quant.packed=false"
            )
        before = before or _packs(part)


@lru_cache(maxsize=65536)
def _stamped(part: PartRecipe, digest: str) -> PartRecipe:
    return replace(part, schemes=tuple(None if s is None else _scheme(s, digest) for s in part.schemes))


@lru_cache(maxsize=65536)
def _scheme(scheme: Scheme, digest: str) -> Scheme:
    weights, inputs = scheme.weights, scheme.input_activations
    if METHODS[weights.method].calibrates:
        weights = replace(weights, calibration=digest)
    if inputs is not None and not inputs.dynamic:
        inputs = replace(inputs, calibration=digest)
    return replace(scheme, weights=weights, input_activations=inputs)
