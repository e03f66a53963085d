"""The cells of a table as people read them, and which of them are the best of their column."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import pandas as pd

from blip2sweep.metrics.statistics import METRICS
from blip2sweep.results.columns import INTEGER, INTEGER_OR_MIXED, INTEGERS
from blip2sweep.results.schema import column_of

MINUS, NONE = "−", "–"
DIGITS, OF_SHARE, OF_SIZE = 3, 1, 2
SIZES = ("bits_per_weight", "bits_per_weight_touched", "compression_ratio")
NUMBER = re.compile(rf"[{MINUS}-]?\d+(?:\.\d+)?")
LOWER = ("drop", "drop to control")  # columns of the table that the verb chooses itself
LOWER_KINDS = ("latency_", "energy_")
GROUPS = ("model", "dtype", "task", "samples", "data")  # the best is the best of cells that agree in these


def number_text(value: float | None, digits: int) -> str:
    """A number with a minus, not a hyphen; '' for none."""
    if value is None or math.isnan(value):
        return ""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", MINUS)  # + 0.0: no negative zero


def cell_text(value: object, column: str, digits: int | None = None) -> str:
    """A value of one of the table's columns. digits: of numbers that are no counts; by default as many as people read."""
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, int | float | np.number):
        return _of_number(float(value), column, digits)
    return (
        str(value)
        if isinstance(value, str)
        else ", ".join(map(str, value))
        if isinstance(value, Iterable)
        else str(value)
    )


def _of_number(value: float, column: str, digits: int | None) -> str:
    known = column_of(column)
    if known is not None and known.dtype in (INTEGER, INTEGER_OR_MIXED, INTEGERS):
        return number_text(value, 0)
    if column == "bits" or (column.startswith("bits_") and column not in SIZES):
        return f"{value:.3g}"  # the mean of several widths is no whole number
    default = OF_SHARE if column.startswith("retained_") else OF_SIZE if column in SIZES else DIGITS
    return number_text(value, default if digits is None else digits)


def texts(frame: pd.DataFrame, columns: Sequence[str], digits: int | None) -> pd.DataFrame:
    """The frame as texts. columns: what of the table each of its columns is."""
    made = {i: [cell_text(v, c, digits) for v in frame.iloc[:, i]] for i, c in enumerate(columns)}
    found = pd.DataFrame(made, index=frame.index, dtype=object)
    return found.set_axis(list(frame.columns), axis=1)


# ---- the best


def better(column: str) -> int:
    """1 where a higher value of a column is better, -1 where a lower one is, 0 where neither."""
    if column in METRICS:
        return METRICS[column].sign
    if column in LOWER or (column.startswith(LOWER_KINDS) and column_of(column) is not None):
        return -1 if column not in ("latency_batch", "latency_threads", "latency_samples", "latency_device") else 0
    for head, sign in (("drop_control_", 0), ("drop_", 0), ("retained_", 1)):
        metric = METRICS.get(column.removeprefix(head)) if column.startswith(head) else None
        if metric is not None:
            return metric.sign if sign else -1
    return 0


def best_of(
    shown: pd.DataFrame, columns: Sequence[str], eligible: Sequence[bool], groups: Sequence[Hashable]
) -> pd.DataFrame:  # fmt: skip
    """Whether each cell is the best of its column, as it is shown, so that cells which look alike are alike.

    columns: what of the table each column is. eligible: rows that compete; a baseline does not. groups: of rows; each has a
    best of its own.
    """
    found = pd.DataFrame(False, index=shown.index, columns=range(shown.shape[1]))
    for i, sign in enumerate(map(better, columns)):
        values = [
            _value(text) * sign if sign and ok else -math.inf
            for text, ok in zip(shown.iloc[:, i], eligible, strict=True)
        ]
        most: dict[Hashable, float] = {}
        for group, value in zip(groups, values, strict=True):
            most[group] = max(most.get(group, -math.inf), value)
        found[i] = [value > -math.inf and value == most[g] for g, value in zip(groups, values, strict=True)]
    return found.set_axis(list(shown.columns), axis=1)


def _value(text: str) -> float:
    """The number of a cell; NaN, which is never the best, for other texts."""
    return float(text.replace(MINUS, "-")) if NUMBER.fullmatch(text) else math.nan


def competing(rows: pd.DataFrame) -> list[bool]:
    """Whether each row competes for the best: it is neither a baseline nor a control."""
    control = rows["control"] == rows["key"] if "control" in rows else pd.Series(False, index=rows.index)
    return [bool(c) for c in (rows["part"] != "none") & ~control.fillna(False).astype(bool)]


def groups_of(rows: pd.DataFrame) -> list[Hashable]:
    """What has to agree before cells compete."""
    return [tuple(map(str, row)) for row in rows[[c for c in GROUPS if c in rows]].itertuples(index=False)]


def is_number(text: str) -> bool:
    return NUMBER.fullmatch(text) is not None
