"""What a quantized layer takes, in bits: codes, scales, zero points, prescale, bias. Computed from shapes and schemes.

Codes have num_bits, a scale for each tensor, channel or group 16 bits (32 in bitsandbytes and torchao's float8), and, where
the scheme is asymmetric, a zero point num_bits (16 bits for min-max's minimum and HQQ's float). So 4 bits in groups of 128
cost 4 + 16/128 + 4/128 = 4.156 bits a weight, 4.125 when symmetric, NF4 in blocks of 64 4.5. A prescale is 16 bits an input.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.step import FLOAT_BITS, Stored
from blip2sweep.models.part import Linear

if TYPE_CHECKING:
    from blip2sweep.compression.quantize.scheme import Weights


def quantized(layer: Linear, w: Weights, before: Stored) -> Stored:
    """The layer with its values as codes."""
    extra = scales(layer, w) * (METHODS[w.method].scale_bits + _zero_point_bits(w)) + _prescale_bits(layer, w)
    bias = layer.out_features * w.num_bits + 2 * FLOAT_BITS if layer.bias and w.quantize_bias else before.bias_bits
    return before._replace(value_bits=w.num_bits, extra_bits=before.extra_bits + extra, bias_bits=bias)


def scales(layer: Linear, weights: Weights) -> int:
    """How many scales a layer has."""
    if weights.strategy == "tensor":
        return 1
    per_row = math.ceil(layer.in_features / weights.group_size) if weights.group_size else 1
    return layer.out_features * per_row


def _zero_point_bits(w: Weights) -> int:
    own = METHODS[w.method].zero_point_bits
    if own is None:
        return 0 if w.symmetric else w.num_bits
    return own


def _prescale_bits(layer: Linear, w: Weights) -> int:
    return layer.in_features * FLOAT_BITS if METHODS[w.method].prescale else 0
