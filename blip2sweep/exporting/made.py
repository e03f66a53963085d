"""A cell's model, ready to be written: with its recipe in it, and the integers that its weights were made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from blip2sweep.compression.quantize.codes import Codes
from blip2sweep.models.load import Loaded
from blip2sweep.recipe import Recipe
from blip2sweep.wire.pack import CellJob


@dataclass(frozen=True, eq=False)
class Made:
    """loaded: the model with the recipe in it: the weight of a layer in `codes` is the dequantized one. codes: {path of a
    layer: its codes}, of every quantized layer whose method hands them out. recipe: the whole, also what is left to the
    library of a back end (blip2sweep/recipe/back_end.py): those layers are as they were. job: of the cell. folds: {path of a norm or
    linear layer: what its outputs (out) were divided by}.

    The model computes what the cell computes, but AWQ's scales are in the modules that absorb them (`folds`), and not in
    the prescale of codes. So a weight outside of `codes` may differ from the checkpoint's too.
    """

    loaded: Loaded
    recipe: Recipe
    codes: Mapping[str, Codes]
    job: CellJob
    folds: Mapping[str, Tensor] = field(default_factory=dict)
