"""float8 e4m3 of torchao (Micikevicius et al., arXiv:2209.05433): max|w| of a row, or of the tensor, becomes 448."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Weights


def apply(weight: Tensor, bias: Tensor | None, weights: Weights) -> tuple[Tensor, Tensor | None]:
    """weight (out, in) float32 -> dequantized weight of the same shape. The bias is unchanged."""
    from torchao.quantization.granularity import PerRow, PerTensor
    from torchao.quantization.quantize_.workflows.float8.float8_tensor import Float8Tensor

    shared = PerTensor() if weights.strategy == "tensor" else PerRow()
    values = Float8Tensor.from_hp(weight, torch.float8_e4m3fn, shared).dequantize().to(weight.dtype)
    return values.where(weight != 0, weight), bias  # a row of zeros would be 0 / 0
