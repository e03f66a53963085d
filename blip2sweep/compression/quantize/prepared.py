"""A layer that calibration has prepared, so that it can be put into the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blip2sweep.compression.quantize.activations import InputQuantizer
from blip2sweep.compression.quantize.codes import Codes, dequantize
from blip2sweep.compression.quantize.statistics import LayerInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Activations


@dataclass(frozen=True, eq=False)
class Prepared:
    """What calibration made of one layer.

    key: the name of everything that determined it. codes: those that a method made of the weight. weight (out, in): in
    the layer's dtype, of a method without codes. Neither is there where only the range of the input was measured.
    prescale (in), low and high (scalars): for the quantizer of the input. info: figures for the record.
    kept (out, ceil(in / 8)) uint8: which weights of a layer that is made sparse stay, eight of a row in a byte.
    """

    key: str
    weight: Tensor | None
    prescale: Tensor | None = None
    low: Tensor | None = None
    high: Tensor | None = None
    info: LayerInfo = field(default_factory=lambda: LayerInfo())
    kept: Tensor | None = None
    codes: Codes | None = None

    @property
    def has_weight(self) -> bool:
        return self.codes is not None or self.weight is not None

    def values(self, dtype: torch.dtype) -> Tensor | None:
        """The weight (out, in) in the layer's dtype; None where there is none."""
        return self.weight if self.codes is None else dequantize(self.codes).to(dtype)

    def quantizer(self, activations: Activations) -> InputQuantizer:
        return InputQuantizer(activations, self.prescale, self.low, self.high)
