"""Sizes of a recipe in bits and bytes, computed from shapes and entries.

The specs of its steps, one after the other, say what a touched layer takes (`Spec.stored`; for quantization see
blip2sweep/compression/quantize/stored.py). Everything else counts 16 bits for each number, tied weights once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from blip2sweep.compression.step import FLOAT_BITS, Spec, Stored, plain
from blip2sweep.models.block_params import BlockParams
from blip2sweep.models.part import Linear
from blip2sweep.recipe.recipe import PartRecipe, Recipe

NOTHING_KNOWN: BlockParams = {}


@dataclass(frozen=True)
class Size:
    """Bits and counts of one recipe. The figures of the whole model need its parameter count."""

    layers_touched: int
    params_touched: int
    bits_per_weight_touched: float
    bits_per_weight: float
    model_bytes: int
    compression_ratio: float


def weight_bits(layer: Linear, spec: Spec) -> int:
    """The bits of one layer's weight under one spec alone."""
    return spec.stored(layer, plain(layer)).weight_bits


def bias_bits(layer: Linear, spec: Spec) -> int:
    """The bits of one layer's bias under one spec alone."""
    return spec.stored(layer, plain(layer)).bias_bits


class PartBits(NamedTuple):
    """Counts and bits of one part's touched layers."""

    layers: int
    weights: int
    biases: int
    weight_bits: int
    bias_bits: int


@lru_cache(maxsize=65536)
def part_bits(part: PartRecipe) -> PartBits:
    """The sums over one part. Memoised, since the cells of a grid share their parts."""
    touched = list(stored(part).values())
    return PartBits(
        len(touched),
        sum(x.weights for x, _ in touched),
        sum(x.out_features for x, _ in touched if x.bias),
        sum(s.weight_bits for _, s in touched),
        sum(s.bias_bits for _, s in touched),
    )


def stored(part: PartRecipe) -> dict[str, tuple[Linear, Stored]]:
    """{path: (layer, what it takes)} of the touched layers. Each step acts on what the steps before it left."""
    found: dict[str, tuple[Linear, Stored]] = {}
    for kind, site, spec in ((entries.kind, *pair) for entries in part.steps for pair in entries.pairs):
        for x in part.layers_in(kind, site):
            before = found[x.path][1] if x.path in found else plain(x)
            found[x.path] = (x, spec.stored(x, before))
    return found


def other_dropped(recipe: Recipe, block_params: BlockParams) -> int:
    """The parameters of dropped blocks that are in no linear layer of a part, such as those of norms."""
    return sum(
        block_params[name][block] - sum(x.weights + x.out_features * x.bias for x in p.part.linears if x.block == block)
        for name, p in recipe.parts.items()
        for block in p.dropped
        if block in block_params.get(name, {})
    )


def size(recipe: Recipe, model_params: int, block_params: BlockParams = NOTHING_KNOWN) -> Size:
    """The size of a model under a recipe.

    model_params: its parameters, tied ones counted once. block_params: those of each block; of dropped blocks that are not
    there only the linear layers are known to go.
    """
    sums = PartBits(*(sum(column) for column in zip(*map(part_bits, recipe.parts.values()), strict=True)))
    rest = model_params - sums.weights - sums.biases - other_dropped(recipe, block_params)
    total = rest * FLOAT_BITS + sums.weight_bits + sums.bias_bits
    return Size(
        layers_touched=sums.layers,
        params_touched=sums.weights,
        bits_per_weight_touched=sums.weight_bits / sums.weights if sums.weights else float(FLOAT_BITS),
        bits_per_weight=total / model_params,
        model_bytes=math.ceil(total / 8),
        compression_ratio=model_params * FLOAT_BITS / total,
    )
