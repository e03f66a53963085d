"""Sizes of a recipe in bits and bytes, computed from shapes and schemes.

What is stored for a quantized layer: its codes at num_bits, a scale for each tensor, channel or group (16 bits, 32 in
bitsandbytes and torchao's float8), and, where the scheme is asymmetric, a zero point of num_bits (16 bits for min-max's
minimum and HQQ's float). So 4 bits in groups of 128 cost 4 + 16/128 + 4/128 = 4.156 bits a weight, 4.125 when symmetric,
NF4 in blocks of 64 4.5. A prescale is 16 bits an input. Everything else counts at 16 bits, tied weights once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.quantize.scheme import Scheme, Weights
from blip2sweep.models.anatomy import Linear
from blip2sweep.recipe.recipe import PartRecipe, Recipe

FLOAT_BITS = 16


@dataclass(frozen=True)
class Size:
    """Bits and counts of one recipe; the whole-model figures need the model's parameter count."""

    layers_touched: int
    params_touched: int
    bits_per_weight_touched: float
    bits_per_weight: float
    model_bytes: int
    compression_ratio: float


def scales(layer: Linear, weights: Weights) -> int:
    """How many scales a layer has."""
    if weights.strategy == "tensor":
        return 1
    per_row = math.ceil(layer.in_features / weights.group_size) if weights.group_size else 1
    return layer.out_features * per_row


def weight_bits(layer: Linear, scheme: Scheme) -> int:
    """Bits stored for one layer's weight: codes, scales, zero points, prescale."""
    w, method = scheme.weights, METHODS[scheme.weights.method]
    zero_point = method.zero_point_bits
    if zero_point is None:
        zero_point = 0 if w.symmetric else w.num_bits
    prescale = layer.in_features * FLOAT_BITS if method.prescale else 0
    return layer.weights * w.num_bits + scales(layer, w) * (method.scale_bits + zero_point) + prescale


def bias_bits(layer: Linear, scheme: Scheme) -> int:
    """Bits stored for one layer's bias: 16 each, or codes with one scale and minimum where the scheme quantizes it."""
    if not layer.bias:
        return 0
    w = scheme.weights
    return layer.out_features * w.num_bits + 2 * FLOAT_BITS if w.quantize_bias else layer.out_features * FLOAT_BITS


class PartBits(NamedTuple):
    """Counts and bits of one part's touched layers."""

    layers: int
    weights: int
    biases: int
    weight_bits: int
    bias_bits: int


@lru_cache(maxsize=65536)
def part_bits(part: PartRecipe) -> PartBits:
    """Sums over one part; memoised, since the cells of a grid share their parts."""
    touched = list(part.touched())
    return PartBits(
        len(touched),
        sum(x.weights for x, _ in touched),
        sum(x.out_features for x, _ in touched if x.bias),
        sum(weight_bits(x, s) for x, s in touched),
        sum(bias_bits(x, s) for x, s in touched),
    )


def size(recipe: Recipe, model_params: int) -> Size:
    """Size of a model of `model_params` parameters (tied ones counted once) under a recipe."""
    sums = PartBits(*(sum(column) for column in zip(*map(part_bits, recipe.parts.values()), strict=True)))
    rest = model_params - sums.weights - sums.biases
    total = rest * FLOAT_BITS + sums.weight_bits + sums.bias_bits
    return Size(
        layers_touched=sums.layers,
        params_touched=sums.weights,
        bits_per_weight_touched=sums.weight_bits / sums.weights if sums.weights else float(FLOAT_BITS),
        bits_per_weight=total / model_params,
        model_bytes=math.ceil(total / 8),
        compression_ratio=model_params * FLOAT_BITS / total,
    )
