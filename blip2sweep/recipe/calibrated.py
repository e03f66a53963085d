"""Which layers of a recipe are measured, and the digest of what they are measured on, put into their schemes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from blip2sweep.methods import METHODS
from blip2sweep.methods.scheme import Scheme
from blip2sweep.recipe.recipe import PartRecipe, Recipe


def calibrates(scheme: Scheme) -> bool:
    """Whether the method, or a static range of the inputs, needs calibration samples."""
    inputs = scheme.input_activations
    return bool(METHODS[scheme.weights.method].calibrates) or (inputs is not None and not inputs.dynamic)


@lru_cache(maxsize=65536)
def part_calibrates(part: PartRecipe) -> bool:
    return any(calibrates(s) for s in set(part.schemes) - {None} if s is not None)


def stamped(recipe: Recipe, digest: Callable[[str, Sequence[str]], str]) -> Recipe:
    """The recipe with `calibration` in the schemes that are measured. digest(part, hashes of the recipes before it)."""
    parts: dict[str, PartRecipe] = {}
    for name, part in recipe.parts.items():
        before = [p.hash for p in parts.values()]
        parts[name] = _stamped(part, digest(name, before)) if part_calibrates(part) else part
    return Recipe(parts)


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
