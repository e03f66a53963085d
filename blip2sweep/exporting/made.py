"""A cell's model, ready to be written: with its recipe in it, and the integers that its weights were made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from blip2sweep.compression.quantize.codes import Codes
from blip2sweep.models.load import Loaded
from blip2sweep.recipe import Recipe
from blip2sweep.wire.pack import CellJob


@dataclass(frozen=True, eq=False)
class Made:
    """loaded: the model with the recipe in it: the weight of a layer in `codes` is the dequantized one. codes: {path of a
    layer: its codes}, of every quantized layer whose method hands them out. job: of the cell."""

    loaded: Loaded
    recipe: Recipe
    codes: Mapping[str, Codes]
    job: CellJob
