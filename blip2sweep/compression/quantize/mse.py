"""Round to nearest with a clipped range: the range of each scale is shrunk to where the error |q - w|^p is least.

This is the search of GPTQ's quantizer (IST-DASLab/gptq, quant.py: p = 2.4, 100 steps, down to 0.2 of the range).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from blip2sweep.compression.quantize import rtn
from blip2sweep.compression.quantize.codes import numbers

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.codes import Codes
    from blip2sweep.compression.quantize.scheme import Weights

SMALLEST = 0.2  # of the range
AT_ONCE = 2**18  # weights: few enough for a CPU's cache, enough for a GPU
PIECE = 2**14  # of a row: what torch does not split among threads


def clipped(rows: Tensor, weights: Weights, scale_dtype: torch.dtype) -> rtn.Quantized:
    """The codes of rows (r, n) float32.

    Each row has the best of `grid` ranges, the first of which is its whole range.
    """
    assert weights.grid
    assert weights.norm
    bits, symmetric = weights.num_bits, bool(weights.symmetric)
    low, high = rows.amin(-1, keepdim=True).clamp(max=0), rows.amax(-1, keepdim=True).clamp(min=0)
    unit = (high - low).clamp(min=1e-30)  # so that powers of huge and tiny weights stay finite
    best, least = rtn.grid(low, high, bits, symmetric, scale_dtype), low + float("inf")
    for step in range(weights.grid):
        ratio = 1 - (1 - SMALLEST) * step / weights.grid
        scale, zero_point = rtn.grid(low * ratio, high * ratio, bits, symmetric, scale_dtype)
        values = numbers(rtn.encode(rows, scale, zero_point, bits, symmetric), scale, zero_point)
        error = summed(((values - rows).abs() / unit).pow(weights.norm))
        better = error < least
        best = scale.where(better, best[0]), zero_point.where(better, best[1])
        least = error.where(better, least)
    return rtn.Quantized(rtn.encode(rows, *best, bits, symmetric), *best)


def summed(error: Tensor) -> Tensor:
    """error (r, n) -> its sums (r, 1). Long rows are summed piece by piece.

    torch splits the sum of a single long row among its threads, and each number of threads would round differently.
    """
    whole = error.shape[-1] - error.shape[-1] % PIECE
    if not whole:
        return error.sum(-1, keepdim=True)
    pieces = error[:, :whole].unflatten(-1, (-1, PIECE)).sum(-1)
    return torch.cat([pieces, error[:, whole:].sum(-1, keepdim=True)], -1).sum(-1, keepdim=True)


def codes(weight: Tensor, weights: Weights, scale_dtype: torch.dtype = torch.float32) -> Codes:
    """The codes of a weight (out, in) float32."""

    def in_pieces(rows: Tensor) -> rtn.Quantized:
        found = [clipped(piece, weights, scale_dtype) for piece in rows.split(max(1, AT_ONCE // rows.shape[1]))]
        return rtn.Quantized(*(torch.cat(same) for same in zip(*found, strict=True)))

    return rtn.coded(weight, weights, scale_dtype, in_pieces)
