"""NF4 (Dettmers et al., QLoRA, arXiv:2305.14314): sixteen quantiles of a normal distribution times a block's max|w|."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Weights


def codebook(weight: Tensor, weights: Weights, kind: str) -> Tensor:
    """weight (out, in) -> dequantized by bitsandbytes. A block is a group of inputs, or a row that is shorter."""
    from bitsandbytes import functional

    size = weights.group_size or weight.shape[1]
    codes, state = functional.quantize_4bit(weight.contiguous(), blocksize=size, quant_type=kind)
    return functional.dequantize_4bit(codes, state).reshape(weight.shape).to(weight.dtype)


def apply(weight: Tensor, bias: Tensor | None, weights: Weights) -> tuple[Tensor, Tensor | None]:
    """weight (out, in) float32 -> dequantized weight of the same shape. The bias is unchanged."""
    return codebook(weight, weights, "nf4"), bias
