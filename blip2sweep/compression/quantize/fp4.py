"""FP4 of bitsandbytes: one sign bit, two exponent bits and one mantissa bit, times a block's max|w|."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blip2sweep.compression.quantize.nf4 import codebook

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Weights


def apply(weight: Tensor, bias: Tensor | None, weights: Weights) -> tuple[Tensor, Tensor | None]:
    """weight (out, in) float32 -> dequantized weight of the same shape. The bias is unchanged."""
    return codebook(weight, weights, "fp4"), bias
