"""Sizes of rows of earlier versions, which counted 16 bits for every number that is not quantized, computed anew.

Those versions wrote no column `stored`. What a row says of its dtype, recipe and size is enough where the whole model has
one dtype; otherwise the row keeps no size, so that no table mixes two ways of counting.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from functools import lru_cache
from typing import cast

from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.block_params import BlockParams
from blip2sweep.models.dtypes import BITS, HALF
from blip2sweep.recipe.compact import expand
from blip2sweep.recipe.params import param_columns
from blip2sweep.recipe.recipe import Recipe
from blip2sweep.recipe.size import Size, alike, size

Row = Mapping[str, object]
SIZES = tuple(f.name for f in fields(Size))


class OldSizes:
    """Gives rows without `stored` that column and today's sizes. anatomy_of: of a model's name; None where it is not
    known."""

    def __init__(self, anatomy_of: Callable[[str], Anatomy | None]) -> None:
        self._anatomy_of = anatomy_of
        self._recipe = lru_cache(maxsize=None)(self._expanded)

    def __call__(self, row: Row) -> dict[str, object]:
        return {**row, **self.changes(row)}

    def changes(self, row: Row) -> dict[str, object]:
        """What differs in the row; nothing in one with `stored`."""
        if row.get("stored") or not isinstance(row.get("model_bytes"), int | float):
            return {}
        dtype = str(row["dtype"])
        stored = dtype if row.get("imported") is None else half_of(dtype)
        recipe = self._recipe(str(row["model"]), str(row["recipe_json"])) if stored in BITS else None
        sizes = asdict(_resized(row, recipe, BITS[stored])) if recipe else dict.fromkeys(SIZES)
        return {"stored": stored, **sizes}

    def _expanded(self, model: str, entries: str) -> Recipe | None:
        shape = self._anatomy_of(model)
        try:
            return expand(json.loads(entries), shape) if shape else None
        except UserError:
            return None


def half_of(dtype: str) -> str:
    """The dtype in which an imported model counts as stored: nobody says what its files were, so 16 bits as published."""
    return dtype if dtype in HALF else "float16"


def _resized(row: Row, recipe: Recipe, bits: int) -> Size:
    params = _params(float(cast(float, row["model_bytes"])), float(cast(float, row["bits_per_weight"])))
    return size(recipe, alike(params, bits, _blocks(row, recipe, params)))


def _params(model_bytes: float, bits_per_weight: float) -> int:
    """How many parameters a model has whose size is rounded up to bytes: the number that makes whole bits of it."""
    most = model_bytes * 8
    tried = range(math.ceil((most - 7) / bits_per_weight), math.floor(most / bits_per_weight + 0.5) + 1)
    return min(tried, key=lambda n: abs(n * bits_per_weight - round(n * bits_per_weight)))


def _blocks(row: Row, recipe: Recipe, params: int) -> BlockParams:
    """A number for one dropped block such that all of them together have the parameters that the row lacks."""
    dropped = [(name, part.part, block) for name, part in recipe.parts.items() for block in part.dropped]
    if not dropped or not isinstance(row.get("params"), int | float):
        return {}
    gone = param_columns(recipe, params, {}, {})["params"] - int(cast(int, row["params"]))
    others = sum(
        x.weights + x.out_features * x.bias for _, part, block in dropped[1:] for x in part.linears if x.block == block
    )
    return {dropped[0][0]: {dropped[0][2]: gone - others}}
