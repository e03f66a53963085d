"""Simulated quantization of activations: the input of a linear layer is rounded to a grid, per token or per tensor.

The grids are those of round to nearest (blip2sweep/compression/quantize/rtn.py). They are symmetric by default, as in
torchao's W8A8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from blip2sweep.compression.quantize import rtn

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Activations


class InputQuantizer(NamedTuple):
    """Rounds the input of a layer.

    prescale (in): the input is divided by it before rounding and multiplied by it afterwards. low, high (scalars): the
    range of the prescaled input for a static quantizer per tensor. Without them each token has its own range.
    """

    activations: Activations
    prescale: Tensor | None = None
    low: Tensor | None = None
    high: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """x (…, in) on the grid, in the same shape and dtype."""
        rows = x.float() if self.prescale is None else x.float() / self.prescale
        values = rounded(rows, *self._range(rows), self.activations.num_bits, self.activations.symmetric)
        return (values if self.prescale is None else values * self.prescale).to(x.dtype)

    def hook(self, module: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The quantizer as a forward pre-hook of the layer."""
        return (self(args[0]), *args[1:])

    def _range(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        if self.low is not None and self.high is not None:
            return self.low, self.high
        return rows.amin(-1, keepdim=True), rows.amax(-1, keepdim=True)


def rounded(x: Tensor, low: Tensor, high: Tensor, bits: int, symmetric: bool) -> Tensor:
    """x on the grid of the range [low, high], both of which broadcast against x."""
    scale, zero_point = rtn.grid(low.clamp(max=0), high.clamp(min=0), bits, symmetric)
    return (rtn.encode(x, scale, zero_point, bits, symmetric) - zero_point) * scale
