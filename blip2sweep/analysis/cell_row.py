"""One row of a table, as pandas hands it out: a value for each column."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import SupportsFloat

import pandas as pd

Row = Mapping[Hashable, object]


def number(row: Row, column: str) -> float:
    """The value of a column of numbers. NaN where the row has none. Raises TypeError for a value that is no number."""
    value = row.get(column)
    if value is None or value is pd.NA:
        return math.nan
    if not isinstance(value, SupportsFloat):
        raise TypeError(f"{column}: {value!r} is no number")
    return float(value)
