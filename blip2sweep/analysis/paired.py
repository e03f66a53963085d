"""The difference of two cells, image by image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from blip2sweep.analysis.draws import Draws
from blip2sweep.errors import UserError


class Difference(NamedTuple):
    """The drop of one cell minus that of another, and its 95 % interval, 99.5 % where one of them stopped; NaN where one of
    them has no outputs."""

    value: float
    low: float
    high: float


def difference(cells: pd.DataFrame, metric: str, draws: Draws | None, one: str, other: str) -> Difference:
    """drop(one) − drop(other), paired by image; positive where `one` is worse.

    one, other: keys, or their beginnings. Raises UserError where a beginning fits no cell, or several.
    """
    rows = [_row(cells, key) for key in (one, other)]
    value = float(rows[0][f"drop_{metric}"] - rows[1][f"drop_{metric}"])
    return paired_difference(draws, rows[0]["key"], rows[1]["key"], value)


def paired_difference(draws: Draws | None, one: str, other: str, value: float) -> Difference:
    """drop(one) − drop(other) with its interval, whose ends are NaN where one of them has no outputs.

    value: the difference in the table. Where one of them stopped, it is of other images than the other's, and what
    counts is the difference on the images that both have, with an interval of 99.5 %.
    """
    if draws is None or one not in draws or other not in draws:
        return Difference(value, np.nan, np.nan)
    found = draws.paired(one, other)
    return Difference(found.drop if {one, other} & draws.seen.keys() else value, found.low, found.high)


def _row(cells: pd.DataFrame, key: str) -> pd.Series:
    found = cells[cells["key"].str.startswith(key)]
    if len(found) != 1:
        raise UserError(f"{len(found)} cells have a key that begins with {key!r}; right: the key of one cell")
    return found.iloc[0]
