"""The one metric that a table is about: its task's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from blip2sweep.metrics.statistics import LAST, METRICS, by_order, main_metrics

COLUMN = "main_metric"  # of rows whose task says another than the first of METRICS' order


def metrics_of(table: pd.DataFrame) -> list[str]:
    """The main metrics of all tasks at hand, one that no installed task has among them; the likelihood only where there is no
    other."""
    given = table[COLUMN] if COLUMN in table else pd.Series(None, index=table.index, dtype=object)
    named = [str(m) for m in given.dropna().unique() if m in table and table.loc[given == m, m].notna().any()]
    rest = table[given.isna()]
    found = [m for m in main_metrics() if m in rest and rest[m].notna().any()]
    ordered = [*by_order([*named, *found]), *(m for m in named if m not in by_order([m]))]
    return [m for m in ordered if m not in METRICS or METRICS[m].order != LAST] or ordered


def main_metric(table: pd.DataFrame) -> str | None:
    """What the table's task names, else the first of the order that METRICS has; None where no cell has a value of one that is
    known."""
    return next((m for m in metrics_of(table) if m in METRICS), None)


def metric_of(row: Mapping[Any, Any], metrics: list[str]) -> str:
    """Of these the one that a row's task has."""
    own = row.get(COLUMN)
    return str(own) if own in metrics else next((m for m in metrics if not pd.isna(row[m])), metrics[0])
