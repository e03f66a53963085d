"""The integers that a method makes of a weight, and the one place where they become numbers again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Codes:
    """A quantized weight as it is stored.

    values (out, in) uint8: codes of 0 … 2^bits - 1. scale (out, groups), or (1, 1) of a whole tensor: in the dtype in
    which it is stored. zero_point, in the shape of scale: the code of zero; an integer, or a float for methods that
    have such. None: symmetric, the code of zero is 2^(bits - 1). group_size: None where a row, or the tensor, has one
    scale; the last group of a row may be shorter. prescale (in): what the inputs are divided by; None: 1.
    """

    values: Tensor
    scale: Tensor
    zero_point: Tensor | None
    bits: int
    group_size: int | None = None
    prescale: Tensor | None = None

    @property
    def zero(self) -> Tensor:
        """The code of zero as a float32 tensor that broadcasts against scale."""
        if self.zero_point is None:
            return torch.full((1, 1), float(2 ** (self.bits - 1)), device=self.scale.device)
        return self.zero_point.float()

    def spread(self, x: Tensor) -> Tensor:
        """One number for each scale -> one for each weight: it broadcasts against `values`."""
        if self.group_size is None or x.shape[1] == 1:
            return x
        return x.repeat_interleave(self.group_size, 1)[:, : self.values.shape[1]]


def dequantize(codes: Codes) -> Tensor:
    """`(code - zero point) * scale / prescale`, (out, in) float32: what the layer computes with inputs as they come."""
    values = (codes.values.float() - codes.spread(codes.zero)) * codes.spread(codes.scale.float())
    return values if codes.prescale is None else values / codes.prescale.float()
