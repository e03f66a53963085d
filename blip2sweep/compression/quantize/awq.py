"""AWQ (Lin et al., arXiv:2306.00978): weights that see large inputs are scaled up before rounding, Q(W s) / s.

s = mean|x|^r for r in 0, 1/20, …, 19/20, normalised by sqrt(max s · min s). The r with the least output error wins.
Layers that read one tensor share one s, and the module before them absorbs it
(`blip2sweep/apply/calibration/folds.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from blip2sweep.compression.quantize import rtn
from blip2sweep.compression.quantize.codes import as_stored, numbers
from blip2sweep.compression.quantize.statistics import Result, Statistics, output_error, relative_error

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Weights

CLIP_STEPS, CLIP_GRID = 10, 20  # max|w| times 1, 19/20, … 11/20, as published


class Scale(NamedTuple):
    """A scale s (in), its exponent r, and the output error with it."""

    s: Tensor
    ratio: float
    error: float


def search(mean_abs: Tensor, grid: int, error: Callable[[Tensor], float], dtype: torch.dtype = torch.float32) -> Scale:
    """The best of `grid` scales. mean_abs (in): of the inputs. error(s): the output error with Q(W s) / s in place.

    r = 0 is round to nearest. dtype: in which s is stored; float32 where it is not.
    """
    best: Scale | None = None
    for k in range(grid):
        s = as_stored(scale_at(mean_abs, k / grid), dtype)
        found = Scale(s, k / grid, error(s))
        if best is None or found.error < best.error:
            best = found
    assert best is not None
    return best


def scale_at(mean_abs: Tensor, ratio: float) -> Tensor:
    s = mean_abs.pow(ratio).clamp(min=1e-4)
    return s / (s.max() * s.min()).sqrt()


def scaled(weight: Tensor, s: Tensor, weights: Weights, scale_dtype: torch.dtype = torch.float32) -> Tensor:
    """Q(W s) / s for a weight (out, in) and s (in): what the layer computes of its original inputs."""
    return rtn.quantize_dequantize(weight * s, weights, scale_dtype) / s


def own_error(
    layers: Sequence[Tensor], weights: Sequence[Weights], hessian: Tensor, dtype: torch.dtype = torch.float32
) -> Callable[[Tensor], float]:
    """error(s) over the outputs of layers that read one tensor, computed from its second moment `hessian` (in, in).

    dtype: in which their scales are stored.
    """
    return lambda s: sum(
        output_error(scaled(w, s, x, dtype) - w, hessian) for w, x in zip(layers, weights, strict=True)
    )


def clip(weight: Tensor, weights: Weights, hessian: Tensor, scale_dtype: torch.dtype = torch.float32) -> Tensor:
    """A weight (out, in), already scaled, clamped to a smaller range where that lowers the output error.

    hessian (in, in): of the scaled inputs. The error is that of each group's own share of the output, as published.
    """
    result = weight.clone()
    if weights.strategy == "tensor":
        return _clipped(weight, weights, hessian, scale_dtype, whole=True)
    size = weights.group_size or weight.shape[1]
    for start in range(0, weight.shape[1], size):
        part = slice(start, start + size)
        result[:, part] = _clipped(weight[:, part], weights, hessian[part, part], scale_dtype)
    return result


def _clipped(rows: Tensor, weights: Weights, hessian: Tensor, scale_dtype: torch.dtype, whole: bool = False) -> Tensor:
    """rows (out, n), clamped. Each row has its own scale, or all have one where `whole`."""
    largest = rows.abs().amax() if whole else rows.abs().amax(-1, keepdim=True)
    best, least = rows, rows[:, :1] * 0 + float("inf")
    for step in range(CLIP_STEPS):
        limit = largest * (1 - step / CLIP_GRID)
        clamped = rows.clamp(-limit, limit)
        flat = clamped.reshape(1, -1) if whole else clamped
        change = numbers(*rtn.quantize(flat, weights.num_bits, bool(weights.symmetric), scale_dtype))
        change = change.reshape(rows.shape) - rows
        error = ((change @ hessian) * change).sum(-1, keepdim=True)
        error = error.sum().expand_as(least) if whole else error
        better = error < least
        best, least = clamped.where(better, best), error.where(better, least)
    return best


def finish(weight: Tensor, scale: Scale, weights: Weights, statistics: Statistics, clips: bool) -> Result:
    """A layer with its scale. Its range is searched where `clips`."""
    assert statistics.hessian is not None
    s, dtype = scale.s, statistics.scale_dtype
    wide = weight * s
    if clips:
        wide = clip(wide, weights, statistics.hessian / s[:, None] / s, dtype)
    codes = replace(rtn.codes(wide, weights, dtype), prescale=s if scale.ratio else None)
    result = Result.of(codes, info={"ratio": scale.ratio, "clip": clips})
    result.info["error"] = relative_error(result.weight, weight, statistics.hessian)
    return result


def identity(weight: Tensor) -> Scale:
    """The scale 1, for layers before which no module can absorb one."""
    return Scale(torch.ones(weight.shape[1], device=weight.device), 0.0, 0.0)


def calibrated(weight: Tensor, weights: Weights, statistics: Statistics) -> Result:
    """A layer without a fold: only its range is searched. weight (out, in) float32."""
    return finish(weight, identity(weight), weights, statistics, bool(weights.clip))
