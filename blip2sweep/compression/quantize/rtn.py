"""Round to nearest: uniform integer quantization per tensor, per output channel, or per group of inputs.

Scales and zero points follow torchao's `choose_qparams_affine`, with integer zero points and an exact zero. So the
codes are those of `Int*WeightOnlyConfig` and `IntxWeightOnlyConfig`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from blip2sweep.compression.quantize.codes import Codes, as_stored, dequantize

if TYPE_CHECKING:
    from blip2sweep.compression.quantize.scheme import Weights


class Quantized(NamedTuple):
    """codes (rows, n) as float integers; scale, zero_point (rows, 1)."""

    codes: Tensor
    scale: Tensor
    zero_point: Tensor


def code_range(bits: int, symmetric: bool) -> tuple[int, int]:
    """(smallest, largest) code: -2^(b-1) … 2^(b-1)-1 when symmetric, else 0 … 2^b-1."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)


def quantize(rows: Tensor, bits: int, symmetric: bool, scale_dtype: torch.dtype = torch.float32) -> Quantized:
    """rows (r, n) float32 -> codes, with one scale and zero point for each row.

    Constant and all-zero rows give finite values.
    """
    low, high = rows.amin(-1, keepdim=True).clamp(max=0), rows.amax(-1, keepdim=True).clamp(min=0)
    scale, zero_point = grid(low, high, bits, symmetric, scale_dtype)
    return Quantized(encode(rows, scale, zero_point, bits, symmetric), scale, zero_point)


def grid(
    low: Tensor, high: Tensor, bits: int, symmetric: bool, scale_dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Scales and zero points of ranges of any shape, in that shape. low <= 0 <= high.

    scale_dtype: in which a scale is stored. Zero points and codes are those of the scale that is read back.
    """
    least, most = code_range(bits, symmetric)
    smallest = 1.1920929e-07  # torch.finfo(float32).eps, torchao's floor for a scale
    if symmetric:
        scale = as_stored((2 * (-low).maximum(high) / (most - least)).clamp(min=smallest), scale_dtype)
        return scale, scale * 0
    scale = as_stored(((high - low) / (most - least)).clamp(min=smallest), scale_dtype)
    return scale, (least - (low / scale).round()).clamp(least, most)


def encode(x: Tensor, scale: Tensor, zero_point: Tensor, bits: int, symmetric: bool) -> Tensor:
    """The codes of x as float integers. Scale and zero point broadcast against x."""
    return ((x * (1.0 / scale)).round() + zero_point).clamp(*code_range(bits, symmetric))


def split_groups(weight: Tensor, strategy: str, group_size: int | None) -> list[tuple[slice, int]]:
    """(columns, row length) of the pieces of a weight (out, in) that are quantized alike.

    With strategy `group` these are the whole groups and a shorter last one, where group_size does not divide the input
    size.
    """
    out, inn = weight.shape
    if strategy == "tensor":
        return [(slice(0, inn), out * inn)]
    if strategy == "channel" or group_size is None or group_size >= inn:
        return [(slice(0, inn), inn)]
    whole = inn - inn % group_size
    tail = [(slice(whole, inn), inn - whole)] if whole < inn else []
    return [(slice(0, whole), group_size), *tail]


def coded(weight: Tensor, weights: Weights, scale_dtype: torch.dtype, rows: Callable[[Tensor], Quantized]) -> Codes:
    """The codes of a weight (out, in). rows: quantizes rows (r, n), each of which has one scale."""
    bits, symmetric = weights.num_bits, bool(weights.symmetric)
    values, found = torch.empty_like(weight, dtype=torch.uint8), list[Quantized]()
    for columns, length in split_groups(weight, weights.strategy, weights.group_size):
        piece = weight[:, columns]
        found.append(rows(piece.reshape(-1, length)))
        values[:, columns] = (found[-1].codes - code_range(bits, symmetric)[0]).to(torch.uint8).reshape(piece.shape)
    with_one = 1 if weights.strategy == "tensor" else len(weight)
    scale, zero_point = (
        torch.cat([x.reshape(with_one, -1) for x in pieces], 1)
        for pieces in ([q.scale for q in found], [q.zero_point for q in found])
    )
    size = weights.group_size if scale.shape[1] > 1 else None
    return Codes(values, scale.to(scale_dtype), None if symmetric else zero_point, bits, size)


def codes(weight: Tensor, weights: Weights, scale_dtype: torch.dtype = torch.float32) -> Codes:
    """The codes of a weight (out, in) float32."""
    bits, symmetric = weights.num_bits, bool(weights.symmetric)
    return coded(weight, weights, scale_dtype, lambda rows: quantize(rows, bits, symmetric, scale_dtype))


def quantize_dequantize(weight: Tensor, weights: Weights, scale_dtype: torch.dtype = torch.float32) -> Tensor:
    """weight (out, in) float32 -> dequantized weight of the same shape."""
    return dequantize(codes(weight, weights, scale_dtype))
