"""int8 of bitsandbytes (Dettmers et al., arXiv:2208.07339) for weights only: round(127 w / max|row|)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Weights


def apply(weight: Tensor, bias: Tensor | None, weights: Weights) -> tuple[Tensor, Tensor | None]:
    """weight (out, in) float32 -> dequantized weight of the same shape. The bias is unchanged.

    The weight is quantized from half precision, as in the packed layer and as the library's CUDA kernel requires.
    """
    from bitsandbytes import functional

    unit = _unit(weight)
    codes, scale, _ = functional.int8_vectorwise_quant((weight / unit).half().contiguous())
    return functional.int8_vectorwise_dequant(codes, scale).to(weight.dtype) * unit, bias


def _unit(weight: Tensor) -> Tensor:
    """A power of two that brings max|w| into the range of half precision. It is 1 for the weights of any real layer."""
    exponent = weight.abs().amax().frexp().exponent
    return (exponent - exponent.clamp(-10, 15)).float().exp2()
