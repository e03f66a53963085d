"""The fixed schema of table.parquet: which columns a table on disk has, in which order, and of which types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

import pandas as pd
import pyarrow as pa

from blip2sweep.metrics.statistics import METRICS
from blip2sweep.recipe.part_bits import width_columns
from blip2sweep.results.columns import (
    BOOLEAN,
    BOOLEAN_OR_MIXED,
    COLUMNS,
    INTEGER,
    INTEGER_OR_MIXED,
    INTEGERS,
    NUMBER,
    TEXT,
    TEXTS,
    TIME,
    Column,
)

ARROW = {
    TEXT: pa.string(), INTEGER: pa.int64(), NUMBER: pa.float64(), BOOLEAN: pa.bool_(), TIME: pa.timestamp("ns", tz="UTC"),
    TEXTS: pa.list_(pa.string()), INTEGERS: pa.list_(pa.int64()),
    INTEGER_OR_MIXED: pa.int64(), BOOLEAN_OR_MIXED: pa.bool_(),
}  # fmt: skip
FIXED = {c.name: c for c in COLUMNS if c.fixed}
METRIC = next(c for c in COLUMNS if c.name == "<metric>")
VARYING = [c for c in COLUMNS if not c.fixed and c is not METRIC]
PLACES = {c.name: i for i, c in enumerate(COLUMNS)}
# Those of one metric stand together, as they are made, so they have one place.
OF_A_METRIC = ("baseline_<metric>", "drop_<metric>", "drop_<metric>_low", "drop_<metric>_high", "changed_<metric>")
LAST = len(COLUMNS)


def column_of(name: str) -> Column | None:
    """The entry of the dictionary that a column is described by; None for a column from outside."""
    return FIXED.get(name) or (METRIC if name in METRICS else _of_pattern(name))


@cache
def _of_pattern(name: str) -> Column | None:
    """The entry with a varying part that a name fits; of several the one that says most of it."""
    fitting = [c for c in VARYING if re.fullmatch(re.sub(r"<\w+>", r"\\w+", c.name), name)]
    return max(fitting, key=lambda c: len(re.sub(r"<\w+>", "", c.name)), default=None)


def ordered(names: Iterable[str]) -> list[str]:
    """All fixed columns and these, in the order of the dictionary; unknown ones last, in their own order."""
    return sorted(dict.fromkeys([*names, *FIXED]), key=_place)


def _place(name: str) -> int:
    found = column_of(name)
    if found is None:
        return LAST
    return PLACES[OF_A_METRIC[0] if found.name in OF_A_METRIC else found.name]


def whole(table: pa.Table) -> pa.Table:
    """The table with every fixed column, null where it had none, in the order and types of the dictionary.

    A column whose values are of another type keeps its own.
    """
    there = set(table.column_names)
    names = ordered(table.column_names)
    columns = [_typed(n, table[n]) if n in there else pa.nulls(len(table), ARROW[FIXED[n].dtype]) for n in names]
    return pa.table(columns, names=names)


def _typed(name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    found = column_of(name)
    if found is None or values.type == ARROW[found.dtype]:
        return values
    try:
        return values.cast(ARROW[found.dtype])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return values


def every_column(table: pd.DataFrame) -> pd.DataFrame:
    """The table with every fixed column, in the order of the dictionary."""
    return table.reindex(columns=ordered(map(str, table)))


def known(table: pd.DataFrame) -> pd.DataFrame:
    """The table without columns that are empty everywhere: what an analysis reads.

    Widths of parts stay, since a part that no cell touches is still a part.
    """
    return table.loc[:, table.notna().any() | table.columns.isin(width_columns(table))]


def names_of_known(nulls: Sequence[tuple[str, int]], rows: int) -> list[str]:
    """The same by name. nulls: (column, number of its nulls)."""
    widths = set(width_columns(name for name, _ in nulls))
    return [name for name, count in nulls if count < rows or name in widths]
