"""int8 of bitsandbytes (Dettmers et al., LLM.int8(), arXiv:2208.07339), weights alone: round(127 w / max|row|)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.methods.scheme import Weights


def apply(weight: Tensor, bias: Tensor | None, weights: Weights) -> tuple[Tensor, Tensor | None]:
    """weight (out, in) float32 -> dequantized weight of the same shape; the bias stays."""
    from bitsandbytes import functional

    codes, scale, _ = functional.int8_vectorwise_quant(weight.contiguous())
    return functional.int8_vectorwise_dequant(codes, scale).to(weight.dtype), bias
