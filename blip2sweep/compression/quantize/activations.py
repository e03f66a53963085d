"""Activation quantization, simulated: the input of a linear rounded to a grid of any width, per token or per tensor.

The grids are those of round to nearest (blip2sweep/methods/rtn.py), symmetric by default, as in torchao's W8A8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from blip2sweep.compression.quantize import rtn

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Activations


class InputQuantizer(NamedTuple):
    """activations: the scheme; prescale (in): the input is divided by it before rounding and multiplied after;
    low, high: the range of a static quantizer (per tensor), scalars, of the prescaled input; without them each token has its
    own."""

    activations: Activations
    prescale: Tensor | None = None
    low: Tensor | None = None
    high: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """x (…, in) -> the same shape and dtype, on the grid."""
        rows = x.float() if self.prescale is None else x.float() / self.prescale
        values = rounded(rows, *self._range(rows), self.activations.num_bits, self.activations.symmetric)
        return (values if self.prescale is None else values * self.prescale).to(x.dtype)

    def hook(self, module: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """As a forward pre-hook of the layer."""
        return (self(args[0]), *args[1:])

    def _range(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        if self.low is not None and self.high is not None:
            return self.low, self.high
        return rows.amin(-1, keepdim=True), rows.amax(-1, keepdim=True)


def rounded(x: Tensor, low: Tensor, high: Tensor, bits: int, symmetric: bool) -> Tensor:
    """x on the grid of the range [low, high], which broadcasts against it."""
    scale, zero_point = rtn.grid(low.clamp(max=0), high.clamp(min=0), bits, symmetric)
    return (rtn.encode(x, scale, zero_point, bits, symmetric) - zero_point) * scale
