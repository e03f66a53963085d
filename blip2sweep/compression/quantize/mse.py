"""Round to nearest with a clipped range: the range of each scale is shrunk to where the error |q - w|^p is least.

This is the search of GPTQ's quantizer (IST-DASLab/gptq, quant.py: p = 2.4, 100 steps, down to 0.2 of the range).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from blip2sweep.compression.quantize import rtn

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Weights

SMALLEST = 0.2  # of the range
AT_ONCE = 2**18  # weights: few enough for a CPU's cache, enough for a GPU
PIECE = 2**14  # of a row: what torch does not split among threads


def clipped(rows: Tensor, weights: Weights) -> Tensor:
    """rows (r, n) float32 -> dequantized.

    Each row has the best of `grid` ranges, the first of which is its whole range.
    """
    assert weights.grid
    assert weights.norm
    bits, symmetric = weights.num_bits, bool(weights.symmetric)
    low, high = rows.amin(-1, keepdim=True).clamp(max=0), rows.amax(-1, keepdim=True).clamp(min=0)
    unit = (high - low).clamp(min=1e-30)  # so that powers of huge and tiny weights stay finite
    best, least = rows, low + float("inf")
    for step in range(weights.grid):
        ratio = 1 - (1 - SMALLEST) * step / weights.grid
        scale, zero_point = rtn.grid(low * ratio, high * ratio, bits, symmetric)
        values = (rtn.encode(rows, scale, zero_point, bits, symmetric) - zero_point) * scale
        error = summed(((values - rows).abs() / unit).pow(weights.norm))
        better = error < least
        best, least = values.where(better, best), error.where(better, least)
    return best


def summed(error: Tensor) -> Tensor:
    """error (r, n) -> its sums (r, 1). Long rows are summed piece by piece.

    torch splits the sum of a single long row among its threads, and each number of threads would round differently.
    """
    whole = error.shape[-1] - error.shape[-1] % PIECE
    if not whole:
        return error.sum(-1, keepdim=True)
    pieces = error[:, :whole].unflatten(-1, (-1, PIECE)).sum(-1)
    return torch.cat([pieces, error[:, whole:].sum(-1, keepdim=True)], -1).sum(-1, keepdim=True)


def apply(weight: Tensor, bias: Tensor | None, weights: Weights) -> tuple[Tensor, Tensor | None]:
    """weight (out, in) float32 -> dequantized weight of the same shape. The bias is unchanged."""

    def in_pieces(rows: Tensor) -> Tensor:
        return torch.cat([clipped(piece, weights) for piece in rows.split(max(1, AT_ONCE // rows.shape[1]))])

    return rtn.by_rows(weight, weights.strategy, weights.group_size, in_pieces), bias
