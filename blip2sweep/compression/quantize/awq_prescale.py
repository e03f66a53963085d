"""AWQ's scales for any single linear layer: the input is divided by s at run time, so no module has to absorb s.

It is for layers that have no legal fold, such as those of the Q-Former, whose LayerNorms come last. The 16-bit scales
count in the size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from blip2sweep.compression.quantize import awq
from blip2sweep.compression.quantize.statistics import Result, Statistics

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Weights


def calibrated(weight: Tensor, weights: Weights, statistics: Statistics) -> Result:
    """The codes of W s with the least output error for a weight W (out, in) float32, and the prescale s (in)."""
    assert statistics.hessian is not None
    assert weights.grid
    dtype = statistics.scale_dtype
    error = awq.own_error([weight], [weights], statistics.hessian, dtype)
    best = awq.search(statistics.mean_abs, weights.grid, error, dtype)
    return replace(awq.finish(weight, best, weights, statistics, bool(weights.clip)), prescale=best.s)
