"""Rows of a table, collected by column. Of 100,000 rows of 80 values a list of mappings would take half a gigabyte."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import nan

Row = Mapping[str, object]  # {column: value}


def by_column(rows: Iterable[Row]) -> dict[str, list[object]]:
    """{column: its values}, in the order in which columns first stand in some row; NaN where a row lacks the column."""
    found: dict[str, list[object]] = {}
    for n, row in enumerate(rows):
        for name, value in row.items():
            if name in found:
                found[name].append(value)
            else:
                found[name] = [*[nan] * n, value]
        if len(row) < len(found):
            for name in found.keys() - row.keys():
                found[name].append(nan)
    return found
