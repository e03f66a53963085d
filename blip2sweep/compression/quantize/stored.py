"""The bits that a quantized layer takes: codes, scales, zero points, prescale, bias. Computed from shapes and schemes.

A code has num_bits. Each tensor, channel or group has a scale of 16 bits (32 in bitsandbytes and torchao's float8). An
asymmetric scheme has a zero point of num_bits with each scale (16 bits for min-max's minimum and HQQ's float). So 4
bits in groups of 128 cost 4 + 16/128 + 4/128 = 4.156 bits a weight, or 4.125 when symmetric. NF4 in blocks of 64 costs
4.5. A prescale costs 16 bits for each input.
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
    """What the layer takes with codes instead of numbers. before: what it takes without them."""
    extra = scales(layer, w) * (METHODS[w.method].scale_bits + _zero_point_bits(w)) + _prescale_bits(layer, w)
    extra += _shared_bits(layer, METHODS[w.method].shared_prescale)
    bias = layer.out_features * w.num_bits + 2 * FLOAT_BITS if layer.bias and w.quantize_bias else before.bias_bits
    return before._replace(value_bits=w.num_bits, extra_bits=before.extra_bits + extra, bias_bits=bias)


def scales(layer: Linear, weights: Weights) -> int:
    """The number of scales of a layer."""
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


# Of layers that read one tensor, those that follow the first.
FOLLOWERS = ("k_proj", "v_proj", "key", "value", "k", "v", "up_proj")
RANGE_BITS = 4 * 32  # of the inputs: the ends as they come, and as they are rounded


def _shared_bits(layer: Linear, shared: bool) -> int:
    """What is stored once for the inputs of layers that read one tensor: a factor for each, and their range."""
    return 32 * layer.in_features + RANGE_BITS if shared and layer.leaf not in FOLLOWERS else 0
