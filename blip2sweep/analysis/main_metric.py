"""The one metric that a table is about: the main metric of its task."""

from __future__ import annotations

from math import isnan

import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.metrics.statistics import LAST, METRICS, by_order, main_metrics

COLUMN = "main_metric"  # of rows whose task has another main metric than the first by the order of METRICS


def metrics_of(table: pd.DataFrame) -> list[str]:
    """The main metrics of all tasks of a table.

    A metric of a task that is not installed here is among them. The likelihood is among them only where no other is.
    """
    given = table[COLUMN] if COLUMN in table else pd.Series(None, index=table.index, dtype=object)
    named = [str(m) for m in given.dropna().unique() if m in table and table.loc[given == m, m].notna().any()]
    found = _inferred(table[given.isna()])
    ordered = [*by_order([*named, *found]), *(m for m in named if m not in by_order([m]))]
    return [m for m in ordered if m not in METRICS or METRICS[m].order != LAST] or ordered


def _inferred(rows: pd.DataFrame) -> list[str]:
    """The metrics that rows are about which name none: of each row the first by order that has a value. So a row that is
    scored by several rules is about one of them."""
    found, left = [], pd.Series(True, index=rows.index)
    for metric in (m for m in main_metrics() if m in rows):
        own = left & rows[metric].notna()
        found += [metric] if own.any() else []
        left &= ~own
    return found


def main_metric(table: pd.DataFrame) -> str | None:
    """The metric that the table's task names, else the first by the order of METRICS.

    None where no cell has a value of a known metric.
    """
    return next((m for m in metrics_of(table) if m in METRICS), None)


def metric_of(row: Row, metrics: list[str]) -> str:
    """The one of these metrics that belongs to the task of a row."""
    own = row.get(COLUMN)
    return str(own) if own in metrics else next((m for m in metrics if not isnan(number(row, m))), metrics[0])


def by_other_rules(table: pd.DataFrame, metric: str) -> list[str]:
    """The same metric by other rules of scoring, as far as a table has values of it, the default first."""
    plain = METRICS[metric].plain or metric if metric in METRICS else metric
    same = (n for n, other in METRICS.items() if n != metric and (other.plain or n) == plain)
    return [n for n in same if n in table and table[n].notna().any()]
