"""Sizes of a recipe in bits and bytes, computed from shapes and entries: the payload that an export writes.

The specs of its steps, one after the other, say what a touched layer takes (`Spec.stored`; for quantization see
blip2sweep/compression/quantize/stored.py). Everything else counts as many bits as its stage is stored in, tied weights
once. Names, shapes and other descriptions of a file are no part of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from blip2sweep.compression.step import FLOAT_BITS, Spec, Stored, plain
from blip2sweep.models.block_params import BlockParams
from blip2sweep.models.part import Linear, Part
from blip2sweep.recipe.recipe import PartRecipe, Recipe

RATIO_BITS = 16  # of each number of the model that ratios compare with
ANY = ""  # the stage of numbers whose stages are alike


@dataclass(frozen=True)
class Numbers:
    """The numbers of a model without a recipe.

    params: {stage: how many, tied ones once}. bits: {stage: of each, as it is stored}. blocks: those of each block; of
    dropped blocks that are not there only the linear layers are known to go. unwritten: {stage: how many of params are in
    no file}: ratios compare with all of the model, and sizes are of what is written.
    """

    params: Mapping[str, int]
    bits: Mapping[str, int]
    blocks: BlockParams = field(default_factory=dict)
    unwritten: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.params.values())

    @property
    def total_bits(self) -> int:
        return sum((n - self.unwritten.get(stage, 0)) * self.bits[stage] for stage, n in self.params.items())

    @property
    def number_bits(self) -> float:
        """The mean width of what is written."""
        return self.total_bits / (self.total - sum(self.unwritten.values()))

    def bits_of(self, part: Part) -> int:
        return self.bits[part.stage if part.stage in self.bits else ANY]


def alike(params: int, bits: int, blocks: BlockParams | None = None) -> Numbers:
    """The numbers of a model whose stages are all stored alike. params: of the whole model."""
    return Numbers({ANY: params}, {ANY: bits}, blocks or {})


@dataclass(frozen=True)
class Size:
    """Bits and counts of one recipe. compression_ratio: the model at 16 bits a number over what is written."""

    layers_touched: int
    params_touched: int
    bits_per_weight_touched: float
    bits_per_weight: float
    model_bytes: int
    compression_ratio: float


def weight_bits(layer: Linear, spec: Spec, number_bits: int) -> int:
    """The bits of one layer's weight under one spec alone. number_bits: of a number that is not quantized."""
    return spec.stored(layer, plain(layer, number_bits)).weight_bits


def bias_bits(layer: Linear, spec: Spec, number_bits: int) -> int:
    """The bits of one layer's bias under one spec alone."""
    return spec.stored(layer, plain(layer, number_bits)).bias_bits


class PartBits(NamedTuple):
    """Counts and bits of one part's touched layers."""

    layers: int
    weights: int
    biases: int
    weight_bits: int
    bias_bits: int


@lru_cache(maxsize=65536)
def part_bits(part: PartRecipe, number_bits: int) -> PartBits:
    """The sums over one part. Memoised, since the cells of a grid share their parts."""
    touched = list(stored(part, number_bits).values())
    return PartBits(
        len(touched),
        sum(x.weights for x, _ in touched),
        sum(x.out_features for x, _ in touched if x.bias),
        sum(s.weight_bits for _, s in touched),
        sum(s.bias_bits for _, s in touched),
    )


def stored(part: PartRecipe, number_bits: int = FLOAT_BITS) -> dict[str, tuple[Linear, Stored]]:
    """{path: (layer, what it takes)} of the touched layers. Each step acts on what the steps before it left.

    number_bits: of a number that is not quantized. What counts parameters and FLOPs does not ask for it.
    """
    found: dict[str, tuple[Linear, Stored]] = {}
    for kind, site, spec in ((entries.kind, *pair) for entries in part.steps for pair in entries.pairs):
        for x in part.layers_in(kind, site):
            before = found[x.path][1] if x.path in found else plain(x, number_bits)
            found[x.path] = (x, spec.stored(x, before)._replace(number_bits=number_bits))
    return found


def other_dropped(part: PartRecipe, blocks: Mapping[int, int]) -> int:
    """The parameters of a part's dropped blocks that are in none of its linear layers, such as those of norms.

    blocks: {number of a block: its parameters}.
    """
    return sum(
        blocks[block] - sum(x.weights + x.out_features * x.bias for x in part.part.linears if x.block == block)
        for block in part.dropped
        if block in blocks
    )


def size(recipe: Recipe, numbers: Numbers) -> Size:
    """The size of a model under a recipe. numbers: of the model without it."""
    parts = {name: part_bits(part, numbers.bits_of(part.part)) for name, part in recipe.parts.items()}
    sums = PartBits(*(sum(column) for column in zip(*parts.values(), strict=True)))
    gone = (_gone(name, part, parts[name], numbers) for name, part in recipe.parts.items())
    total = numbers.total_bits - sum(gone) + sums.weight_bits + sums.bias_bits
    own = sums.weight_bits / sums.weights if sums.weights else numbers.number_bits
    return Size(
        layers_touched=sums.layers,
        params_touched=sums.weights,
        bits_per_weight_touched=own,
        bits_per_weight=total / numbers.total,
        model_bytes=math.ceil(total / 8),
        compression_ratio=numbers.total * RATIO_BITS / total,
    )


def _gone(name: str, part: PartRecipe, own: PartBits, numbers: Numbers) -> int:
    """How many bits of the model are no longer stored as they were without the recipe of a part."""
    count = own.weights + own.biases + other_dropped(part, numbers.blocks.get(name, {}))
    return count * numbers.bits_of(part.part)
