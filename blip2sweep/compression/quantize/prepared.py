"""A layer that calibration has made ready to be put into the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blip2sweep.compression.quantize.activations import InputQuantizer
from blip2sweep.compression.quantize.statistics import LayerInfo

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Activations


@dataclass(frozen=True, eq=False)
class Prepared:
    """What calibration made of one layer.

    key: names all that determined it. weight: in the layer's dtype, None where only the input's range was measured;
    prescale (in), low, high (scalars): of the input's quantizer; info: tokens, rank, damping, error, ….
    """

    key: str
    weight: Tensor | None
    prescale: Tensor | None = None
    low: Tensor | None = None
    high: Tensor | None = None
    info: LayerInfo = field(default_factory=lambda: LayerInfo())

    def quantizer(self, activations: Activations) -> InputQuantizer:
        return InputQuantizer(activations, self.prescale, self.low, self.high)
