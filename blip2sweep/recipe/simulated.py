"""Whether the kernels of a recipe really run, or are simulated with full-precision ones. Only then does a time say
something of the compression.

Blocks that are left out do not run, and adapters and trained weights run as they are. Quantized and sparse weights are
simulated, unless a packed kernel runs them. A recipe of which one step is simulated takes no time of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.compression.step import DROP, QUANTIZE, RECOVER, SPARSITY, Simulates, Spec, step
from blip2sweep.recipe.recipe import PartRecipe, Recipe

Rule = Callable[[Spec], str | None]


def why_simulated(recipe: Recipe) -> str | None:
    """Why the time that a model with the recipe takes says nothing: one reason of those that its steps give. None where
    every kernel really runs, as of the empty recipe."""
    return next((why for part in recipe.parts.values() if (why := _why_part(part))), None)


@lru_cache(maxsize=65536)
def _why_part(part: PartRecipe) -> str | None:
    specs = dict.fromkeys((s.kind, spec) for s in part.steps for _, spec in s.pairs)
    return next((why for kind, spec in specs if (why := _why(kind, spec))), None)


def _runs(spec: Spec) -> str | None:
    return None


def _quantized(spec: Spec) -> str | None:
    assert isinstance(spec, Scheme)
    return None if spec.weights.packed else "quantization is simulated without quant.packed"


def _sparse(spec: Spec) -> str | None:
    return None if getattr(spec, "packed", None) else "sparsity is simulated without sparsity.packed"


RULES: Mapping[str, Rule] = {DROP: _runs, SPARSITY: _sparse, QUANTIZE: _quantized, RECOVER: _runs}


def _why(kind: str, spec: Spec) -> str | None:
    """The reason of one spec. A step from outside gives it itself."""
    if kind in RULES:
        return RULES[kind](spec)
    simulates: Simulates | None = getattr(step(kind), "simulates", None)
    return simulates(spec) if simulates else f"step {kind} does not say whether its kernels run"
