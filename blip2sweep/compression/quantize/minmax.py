"""Min-max quantization exactly as in the published BLIP-2 study (gautomdas/blip2-coco): per tensor, the bias alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Weights


def quantize_dequantize(x: Tensor, bits: int) -> Tensor:
    """`a = max - min; round((2^b - 1)(x - min) / a) / (2^b - 1) * a + min`, over the whole tensor.

    Zero is not exactly representable. A constant tensor (a = 0) is returned unchanged; the published formula gives NaN.
    """
    low, high = x.min(), x.max()
    extent = high - low
    if extent == 0:
        return x.clone()
    levels = 2**bits - 1
    return ((levels * (x - low) / extent).round() / levels) * extent + low


def apply(weight: Tensor, bias: Tensor | None, weights: Weights) -> tuple[Tensor, Tensor | None]:
    """weight (out, in), bias (out) or None -> the same shapes and dtypes, on the grid of `weights.num_bits`."""
    quantized = quantize_dequantize(weight, weights.num_bits)
    if bias is None or not weights.quantize_bias:
        return quantized, bias
    return quantized, quantize_dequantize(bias, weights.num_bits)
