"""How much smaller a recipe is, in words: always against the model at 16 bits a number, as `compression_ratio` has it."""

from __future__ import annotations

import math

import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.recipe.size import RATIO_BITS

NEAR = 0.005  # a ratio this near to 1 is written as 1


def smaller(ratio: float) -> str:
    """`2.5 times smaller than at 16 bits`, of a ratio below 1 that it is larger; empty where it is not known."""
    if math.isnan(ratio):
        return ""
    at = f"at {RATIO_BITS} bits"
    if abs(ratio - 1) < NEAR:
        return f"as large as {at}"
    return f"larger than {at}" if ratio < 1 else f"{_times(ratio)} times smaller than {at}"


def ratio_text(ratio: float) -> str:
    """`2.51`, or `0.71 (larger than at 16 bits)`."""
    return f"{ratio:.2f}" + (f" ({smaller(ratio)})" if ratio < 1 - NEAR else "")


def ratio_of(row: Row) -> float:
    """The ratio of a cell; NaN where it is not known."""
    if "compression_ratio" in row and not math.isnan(found := number(row, "compression_ratio")):
        return found
    width = number(row, "bits_per_weight") if "bits_per_weight" in row else math.nan
    return RATIO_BITS / width if width > 0 else math.nan


def as_loaded(cells: pd.DataFrame, row: Row) -> str:
    """`5.0 times smaller than as it is loaded in float32`, where the model is not loaded at 16 bits; else empty."""
    base = cells[cells["part"] == "none"].iloc[0].to_dict()
    now, was = number(row, "model_bytes"), number(base, "model_bytes")
    if not (now > 0 and was > now) or not abs(ratio_of(base) - 1) > NEAR:
        return ""
    stored = next((str(base[c]) for c in ("stored", "dtype") if isinstance(base.get(c), str)), "")
    return f"{_times(was / now)} times smaller than as it is loaded{f' in {stored}' if stored else ''}"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 1.1 else f"{ratio:.1f}"  # 1.04 is not 1.0
