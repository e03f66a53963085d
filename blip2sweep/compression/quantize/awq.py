"""AWQ (Lin et al., arXiv:2306.00978): weights that see large inputs are scaled up before rounding, Q(W s) / s.

s = mean|x|^r, r in 0, 1/20, …, 19/20 (not r = 0 … 19), normalised by sqrt(max s · min s); the r of least output error
wins. Layers that read one tensor share one s, which the operation before them absorbs (`blip2sweep/apply/calibration/folds.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from blip2sweep.compression.quantize import rtn
from blip2sweep.compression.quantize.statistics import Result, Statistics, output_error, relative_error

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Weights

CLIP_STEPS, CLIP_GRID = 10, 20  # max|w| times 1, 19/20, … 11/20, as published


class Scale(NamedTuple):
    """s (in), its exponent r, and the error it left."""

    s: Tensor
    ratio: float
    error: float


def search(mean_abs: Tensor, grid: int, error: Callable[[Tensor], float]) -> Scale:
    """The best of `grid` scales for mean_abs (in). error(s): of the output with Q(W s) / s in place. r = 0 is RTN."""
    best: Scale | None = None
    for k in range(grid):
        s = scale_at(mean_abs, k / grid)
        found = Scale(s, k / grid, error(s))
        if best is None or found.error < best.error:
            best = found
    assert best is not None
    return best


def scale_at(mean_abs: Tensor, ratio: float) -> Tensor:
    s = mean_abs.pow(ratio).clamp(min=1e-4)
    return s / (s.max() * s.min()).sqrt()


def scaled(weight: Tensor, s: Tensor, weights: Weights) -> Tensor:
    """Q(W s) / s for weight (out, in): what the layer computes, in its original inputs."""
    return rtn.quantize_dequantize(weight * s, weights) / s


def own_error(layers: Sequence[Tensor], weights: Sequence[Weights], hessian: Tensor) -> Callable[[Tensor], float]:
    """error(s) over the outputs of layers that read one tensor, by its second moment."""
    return lambda s: sum(output_error(scaled(w, s, x) - w, hessian) for w, x in zip(layers, weights, strict=True))


def clip(weight: Tensor, weights: Weights, hessian: Tensor) -> Tensor:
    """weight (out, in), already scaled, with hessian in its scaled inputs -> clamped where that lowers the error.

    Each scale's own part of the output is held against the range, group by group, as published.
    """
    result = weight.clone()
    if weights.strategy == "tensor":
        return _clipped(weight, weights, hessian, whole=True)
    size = weights.group_size or weight.shape[1]
    for start in range(0, weight.shape[1], size):
        part = slice(start, start + size)
        result[:, part] = _clipped(weight[:, part], weights, hessian[part, part])
    return result


def _clipped(rows: Tensor, weights: Weights, hessian: Tensor, whole: bool = False) -> Tensor:
    """rows (out, n) that have a scale each (one for all where `whole`)."""
    largest = rows.abs().amax() if whole else rows.abs().amax(-1, keepdim=True)
    best, least = rows, rows[:, :1] * 0 + float("inf")
    for step in range(CLIP_STEPS):
        limit = largest * (1 - step / CLIP_GRID)
        clamped = rows.clamp(-limit, limit)
        flat = clamped.reshape(1, -1) if whole else clamped
        change = (
            rtn.dequantize(rtn.quantize(flat, weights.num_bits, bool(weights.symmetric))).reshape(rows.shape) - rows
        )
        error = ((change @ hessian) * change).sum(-1, keepdim=True)
        error = error.sum().expand_as(least) if whole else error
        better = error < least
        best, least = clamped.where(better, best), error.where(better, least)
    return best


def finish(weight: Tensor, scale: Scale, weights: Weights, statistics: Statistics, clips: bool) -> Result:
    """The layer with its scale, clipped where that is asked for."""
    assert statistics.hessian is not None
    s = scale.s
    wide = weight * s
    if clips:
        wide = clip(wide, weights, statistics.hessian / s[:, None] / s)
    values = rtn.quantize_dequantize(wide, weights) / s
    error = relative_error(values, weight, statistics.hessian)
    return Result(values, info={"ratio": scale.ratio, "clip": clips, "error": error})


def identity(weight: Tensor) -> Scale:
    """No scaling, for layers before which nothing can absorb one."""
    return Scale(torch.ones(weight.shape[1], device=weight.device), 0.0, 0.0)


def calibrated(weight: Tensor, weights: Weights, statistics: Statistics) -> Result:
    """A layer without a legal fold before it: clip search alone."""
    return finish(weight, identity(weight), weights, statistics, bool(weights.clip))
