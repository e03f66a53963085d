"""Rows of a table, collected by column. Of 100,000 rows of 80 values a list of mappings would take half a gigabyte."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = Mapping[str, object]  # {column: value}
Values = list[Any] | NDArray[np.float64]
CHUNK = 10_000  # values of a column that are packed together


class _Column:
    """The values of one column. Chunks of nothing but floats are packed."""

    def __init__(self, before: int) -> None:
        """before: how many rows lack the column."""
        self.last: list[object] = [nan] * before
        self.chunks: list[Values] = []

    def pack(self) -> None:
        """End the chunk."""
        floats = set(map(type, self.last)) <= {float}
        self.chunks.append(np.array(self.last, float) if floats else self.last)
        self.last = []

    def values(self) -> Values:
        """All values: an array where all are floats."""
        self.pack()
        if all(isinstance(chunk, np.ndarray) for chunk in self.chunks):
            return np.concatenate(self.chunks)
        return [value for chunk in self.chunks for value in (chunk if isinstance(chunk, list) else chunk.tolist())]


def by_column(rows: Iterable[Row]) -> dict[str, Values]:
    """{column: its values}, in the order in which columns first stand in some row; NaN where a row lacks the column."""
    found: dict[str, _Column] = {}
    for n, row in enumerate(rows):
        for name, value in row.items():
            if name not in found:
                found[name] = _Column(n)
            found[name].last.append(value)
        if len(row) < len(found):
            for name in found.keys() - row.keys():
                found[name].last.append(nan)
        if n % CHUNK == CHUNK - 1:
            for column in found.values():
                column.pack()
    return {name: column.values() for name, column in found.items()}
