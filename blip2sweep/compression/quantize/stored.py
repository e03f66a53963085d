"""The bits that a quantized layer takes: codes, scales, zero points, prescale, bias. Computed from shapes and schemes.

A code has num_bits. Each tensor, channel or group has a scale as wide as the numbers of its stage are stored (32 bits in
bitsandbytes, torchao's float8 and min-max). An asymmetric scheme has a zero point of num_bits with each scale; min-max's
minimum and HQQ's zero point are numbers, as wide as the scale. So where numbers have 16 bits, 4 bits in groups of 128
cost 4 + 16/128 + 4/128 = 4.156 bits a weight, or 4.125 when symmetric. NF4 in blocks of 64 costs 4.5. A prescale is one
number for each input.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.step import Stored
from blip2sweep.models.part import Linear

if TYPE_CHECKING:
    from blip2sweep.compression.quantize.scheme import Weights


def quantized(layer: Linear, w: Weights, before: Stored) -> Stored:
    """What the layer takes with codes instead of numbers. before: what it takes without them."""
    method = METHODS[w.method]
    scale = method.scale_bits or before.number_bits
    prescale = layer.in_features * before.number_bits if method.prescale else 0
    extra = scales(layer, w) * (scale + _zero_point_bits(w, scale)) + prescale
    extra += _shared_bits(layer, method.shared_prescale)
    if method.whole_bytes:
        per_row = scales(layer, w) // layer.out_features * _zero_point_bits(w, scale)
        extra += layer.out_features * (-per_row % 8)
    bias = layer.out_features * w.num_bits + 2 * scale if layer.bias and w.quantize_bias else before.bias_bits
    return before._replace(value_bits=w.num_bits, extra_bits=before.extra_bits + extra, bias_bits=bias)


def scales(layer: Linear, weights: Weights) -> int:
    """The number of scales of a layer."""
    if weights.strategy == "tensor":
        return 1
    per_row = math.ceil(layer.in_features / weights.group_size) if weights.group_size else 1
    return layer.out_features * per_row


def _zero_point_bits(w: Weights, scale: int) -> int:
    """The bits of one zero point. scale: those of a scale."""
    method = METHODS[w.method]
    if method.number_zero:
        return scale
    if method.zero_point_bits is not None:
        return method.zero_point_bits
    return 0 if w.symmetric else w.num_bits


# Of layers that read one tensor, those that follow the first.
FOLLOWERS = ("k_proj", "v_proj", "key", "value", "k", "v", "up_proj")
RANGE_BITS = 4 * 32  # of the inputs: the ends as they come, and as they are rounded


def _shared_bits(layer: Linear, shared: bool) -> int:
    """What is stored once for the inputs of layers that read one tensor: a factor for each, and their range."""
    return 32 * layer.in_features + RANGE_BITS if shared and layer.leaf not in FOLLOWERS else 0
