"""Round to nearest: uniform integer quantization per tensor, per output channel, or per group of inputs.

Scales and zero points follow torchao's `choose_qparams_affine`, with integer zero points and an exact zero. So the
codes are those of `Int*WeightOnlyConfig` and `IntxWeightOnlyConfig`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Weights


class Quantized(NamedTuple):
    """codes (rows, n) as float integers; scale, zero_point (rows, 1)."""

    codes: Tensor
    scale: Tensor
    zero_point: Tensor


def code_range(bits: int, symmetric: bool) -> tuple[int, int]:
    """(smallest, largest) code: -2^(b-1) … 2^(b-1)-1 when symmetric, else 0 … 2^b-1."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)


def quantize(rows: Tensor, bits: int, symmetric: bool) -> Quantized:
    """rows (r, n) float32 -> codes, with one scale and zero point for each row.

    Constant and all-zero rows give finite values.
    """
    low, high = rows.amin(-1, keepdim=True).clamp(max=0), rows.amax(-1, keepdim=True).clamp(min=0)
    scale, zero_point = grid(low, high, bits, symmetric)
    return Quantized(encode(rows, scale, zero_point, bits, symmetric), scale, zero_point)


def grid(low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Scales and zero points of ranges of any shape, in that shape. low <= 0 <= high."""
    least, most = code_range(bits, symmetric)
    smallest = 1.1920929e-07  # torch.finfo(float32).eps, torchao's floor for a scale
    if symmetric:
        scale = (2 * (-low).maximum(high) / (most - least)).clamp(min=smallest)
        return scale, scale * 0
    scale = ((high - low) / (most - least)).clamp(min=smallest)
    return scale, (least - (low / scale).round()).clamp(least, most)


def encode(x: Tensor, scale: Tensor, zero_point: Tensor, bits: int, symmetric: bool) -> Tensor:
    """The codes of x as float integers. Scale and zero point broadcast against x."""
    return ((x * (1.0 / scale)).round() + zero_point).clamp(*code_range(bits, symmetric))


def dequantize(q: Quantized) -> Tensor:
    """`(codes - zero_point) * scale`, (rows, n)."""
    return (q.codes - q.zero_point) * q.scale


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


def by_rows(weight: Tensor, strategy: str, group_size: int | None, quantize_rows: Callable[[Tensor], Tensor]) -> Tensor:
    """A weight (out, in) through `quantize_rows`, which takes and gives (rows, n). Each row shares one scale."""
    result = weight.clone()
    for columns, length in split_groups(weight, strategy, group_size):
        piece = weight[:, columns]
        result[:, columns] = quantize_rows(piece.reshape(-1, length)).reshape(piece.shape)
    return result


def quantize_dequantize(weight: Tensor, weights: Weights) -> Tensor:
    """weight (out, in) float32 -> dequantized weight of the same shape."""
    bits, symmetric = weights.num_bits, bool(weights.symmetric)

    def rounded(rows: Tensor) -> Tensor:
        return dequantize(quantize(rows, bits, symmetric))

    return by_rows(weight, weights.strategy, weights.group_size, rounded)


def apply(weight: Tensor, bias: Tensor | None, weights: Weights) -> tuple[Tensor, Tensor | None]:
    """weight (out, in) float32 -> dequantized weight of the same shape. The bias is unchanged."""
    return quantize_dequantize(weight, weights), bias
