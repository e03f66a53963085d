"""A method from outside: weights rounded to whole multiples of a power of two."""

from __future__ import annotations

import torch
from torch import Tensor

from blip2sweep.compression.quantize import Method
from blip2sweep.compression.quantize.scheme import Weights

METHOD = Method("toy_shift", bits=(2, 3, 4, 8), strategies=("channel",), scale_bits=8)


def apply(weight: Tensor, bias: Tensor | None, weights: Weights) -> tuple[Tensor, Tensor | None]:
    """weight: (out, in) float32; one scale, a power of two, a row."""
    most = 2 ** (weights.num_bits - 1) - 1
    largest = weight.abs().amax(1, keepdim=True).clamp(min=1e-12)
    scale = torch.exp2(torch.ceil(torch.log2(largest / most)))
    return torch.round(weight / scale).clamp(-most, most) * scale, bias
