"""The rows and columns that were asked for: filtered, sorted, chosen, or turned into a pivot. Values stay values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from blip2sweep.errors import UserError
from blip2sweep.reporting.table_asked import Asked
from blip2sweep.reporting.table_cells import cell_text
from blip2sweep.reporting.table_mistakes import nothing_fits
from blip2sweep.reporting.table_where import fulfilling, kind_of

# What may tell two cells of one place of a pivot apart, for its message.
TELLING = ("model", "dtype", "stored", "task", "samples", "data", "generation", "backend", "imported", "part", "bits", "setting",
           "method", "strategy", "group_size", "symmetric", "input_bits", "blocks", "layers", "calibration", "calibration_samples",
           "calibration_seed", "calibration_upstream", "recover", "status", "recipe")  # fmt: skip


class Pivot(NamedTuple):
    """frame: one column for each of `rows`, then one for each value of the column `across`. heads: those values, as
    texts. value: the column whose values stand in it. baselines: a line for each value of a baseline, which has no place
    in it. others: a line on further rows that have none."""

    frame: pd.DataFrame
    rows: list[str]
    across: str
    heads: list[str]
    value: str
    baselines: list[str]
    others: list[str]

    @property
    def left_out(self) -> list[str]:
        """All that has no place in it."""
        return [*self.baselines, *self.others]


def chosen_rows(table: pd.DataFrame, asked: Asked) -> pd.DataFrame:
    """The rows that fulfil all conditions, sorted. Raises UserError where none does."""
    rows = table
    for one in asked.conditions:
        rows = rows[fulfilling(rows, one)]
    if rows.empty:
        raise UserError(nothing_fits(asked.conditions, table))
    return _sorted(rows, asked.order)


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """All cells by task, model, part and width, the baseline of each model first."""
    names = [c for c in ("task", "model", "part", "bits") if c in table]
    keys = pd.DataFrame({c: sortable(table[c]) for c in names}, index=table.index)
    if "part" in keys:
        keys["part"] = keys["part"].where(keys["part"] != "none", "")
    keys = keys.reset_index(drop=True)
    return table.iloc[keys.sort_values(names, kind="stable", na_position="first").index] if names else table


def _sorted(rows: pd.DataFrame, order: Sequence[tuple[str, bool]]) -> pd.DataFrame:
    """Sorted by columns, nulls last whichever way a column goes."""
    there = [(c, up) for c, up in order if c in rows]
    if not there:
        return rows
    keys = pd.DataFrame({str(i): sortable(rows[c]) for i, (c, _) in enumerate(there)}, index=rows.index)
    keys = keys.reset_index(drop=True)
    places = keys.sort_values(
        [*map(str, keys)], ascending=[up for _, up in there], kind="stable", na_position="last"
    ).index
    return rows.iloc[places]


def sortable(values: pd.Series) -> pd.Series:
    """Values that can be compared: numbers and times as they are, all others as texts."""
    if kind_of(values) in ("number", "time", "boolean") and values.dtype != object:
        return values
    return values.where(values.isna(), values.map(str))


def chosen_columns(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Some columns, in the order in which they were named; nulls in one that the table has not."""
    return rows.reindex(columns=list(dict.fromkeys(names)))


def pivot(rows: pd.DataFrame, asked: Asked) -> Pivot:
    """The values of one column by others. Raises UserError where two cells have one place.

    Cells without a value in one of these columns, such as the baseline, have no place. Columns ascend, unless the table is
    sorted by them; rows are as the table has them.
    """
    (*by, across), value = asked.axes, str(asked.value_of(rows))
    rows = rows.reindex(columns=list(dict.fromkeys([*rows.columns, *asked.axes, value])))
    placed = rows[rows[asked.axes].notna().all(axis=1) & rows[value].notna()]
    if placed.empty:
        raise UserError(
            f"--pivot {asked.pivot}: no cell has all of {', '.join([*asked.axes, value])}; right: other columns"
        )
    _refuse_shared(placed, asked)
    values = list(dict.fromkeys(placed[across]))
    if across not in [c for c, _ in asked.order]:
        values = [values[i] for i in sortable(pd.Series(values)).sort_values().index]
    found: dict[tuple[object, ...], dict[object, object]] = {}
    for row in placed[list(dict.fromkeys([*asked.axes, value]))].to_dict("records"):
        found.setdefault(tuple(row[c] for c in by), {})[row[across]] = row[value]
    lines = [[*names, *(cells.get(v) for v in values)] for names, cells in found.items()]
    heads = [f"{v:g}" if isinstance(v, float) else str(v) for v in values]
    frame = pd.DataFrame(lines, columns=[*by, *(f"{across}={h}" for h in heads)])
    return Pivot(frame, by, across, heads, value, *_left_out(rows, placed, asked, value))


def _refuse_shared(placed: pd.DataFrame, asked: Asked) -> None:
    """Raise UserError for cells of one place: what tells them apart, and what to do."""
    shared = placed[placed.duplicated(asked.axes, keep=False)]
    if shared.empty:
        return
    first = shared.iloc[0]
    own = shared[(shared[asked.axes] == first[asked.axes]).all(axis=1)]
    where = " ".join(f"{c}={_text(first[c])}" for c in asked.axes)
    differ = [c for c in TELLING if c in own and c not in asked.axes and own[c].map(str).nunique() > 1]
    told = f"differ in {', '.join(differ[:4])}" if differ else "differ in no column that people read"
    right = (
        f"--where {differ[0]}={_text(first[differ[0]])}, or --pivot {differ[0]},{asked.pivot}"
        if differ
        else "--where key=KEY"
    )
    raise UserError(
        f"--pivot {asked.pivot}: {len(own)} cells have {where} ({', '.join(own['key'].head(2))}); they {told}; right: {right}"
    )


def _left_out(rows: pd.DataFrame, placed: pd.DataFrame, asked: Asked, value: str) -> tuple[list[str], list[str]]:
    """(lines on baselines, with as many digits as the pivot has; a line on all other rows without a place)."""
    others = rows[~rows.index.isin(placed.index)]
    base = others[others["part"] == "none"] if "part" in others else others.iloc[:0]
    texts = dict.fromkeys(cell_text(v, value, asked.digits) for v in base[value].dropna())
    count = len(others) - len(base)
    rest = f"not in it: {count} row{'s' * (count > 1)} without {' or '.join([*asked.axes, value])}"
    return [f"the baseline: {value} {text}" for text in texts], [rest] if count else []


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
