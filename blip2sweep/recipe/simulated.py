"""Whether the kernels of a recipe really run, or are simulated with full-precision ones. Only then does a time say
something of the compression."""

from __future__ import annotations

from functools import lru_cache

from blip2sweep.compression.step import Simulates, Spec, step
from blip2sweep.recipe.recipe import Recipe

UNKNOWN = "step {} does not say whether its kernels run"


def why_simulated(recipe: Recipe) -> str | None:
    """Why the time that a model with the recipe takes says nothing: one reason of those that its steps give. None where
    every kernel really runs, as of the empty recipe."""
    pairs = ((s.kind, spec) for part in recipe.parts.values() for s in part.steps for _, spec in s.pairs)
    return next((why for kind, spec in dict.fromkeys(pairs) if (why := _why(kind, spec))), None)


@lru_cache(maxsize=65536)
def _why(kind: str, spec: Spec) -> str | None:
    """What the step's own `simulates` says of a spec."""
    simulates: Simulates | None = getattr(step(kind), "simulates", None)
    return simulates(spec) if simulates else UNKNOWN.format(kind)
