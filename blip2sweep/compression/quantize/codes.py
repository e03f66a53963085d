"""The integers that a method makes of a weight, and the one place where they become numbers again."""

from __future__ import annotations

from dataclasses import dataclass, replace

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

    @property
    def unscaled(self) -> Codes:
        """Without the prescale: the weight for inputs that are divided by it already."""
        return replace(self, prescale=None)

    def with_zeros(self, kept: Tensor | None) -> Codes | None:
        """With the code of zero wherever a weight does not stay. kept (out, in) bool; None: all stay.

        None where a zero point lies between two codes.
        """
        if kept is None:
            return self
        zero = self.spread(self.zero)
        if (zero != zero.round()).any():
            return None
        return replace(self, values=self.values.where(kept, zero.expand(self.values.shape).to(torch.uint8)))


def dequantize(codes: Codes) -> Tensor:
    """`(code - zero point) * scale / prescale`, (out, in) float32: what the layer computes with inputs as they come."""
    values = numbers(codes.values.float(), codes.spread(codes.scale.float()), codes.spread(codes.zero))
    return values if codes.prescale is None else values / codes.prescale.float()


def numbers(values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """The numbers that codes stand for. All are float32 and broadcast."""
    return (values - zero_point) * scale


def as_stored(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A float32 scale as it is read back from where it is stored, in float32. Only 16 bits round it."""
    return x.to(dtype).float() if dtype.itemsize == 2 else x
