"""The main metric of a sweep's rows. A cell has the scores of every rule that some sweep asked for; a sweep's own table is
about the rule that it asked for first."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from blip2sweep.metrics.statistics import BUILT_IN, METRICS, main_metrics

COLUMN = "main_metric"  # of rows where it is another one than the first metric by order that has a value


def with_main_metrics(rows: pd.DataFrame, wanted: Mapping[str, str]) -> pd.DataFrame:
    """The rows with the column `main_metric` as one sweep wants it.

    wanted: {key: metric}. Any other cell is wanted by the default rule: it is about the plain metric where its task
    names that of a variant, because another sweep had it computed.
    """
    given = rows[COLUMN] if COLUMN in rows else pd.Series(None, index=rows.index, dtype=object)
    given = given.astype(object).where(given.notna(), None)
    own = [wanted.get(key) or _plain(metric) for key, metric in zip(rows["key"], given, strict=True)]
    if own == list(given):
        return rows
    ordered = [m for m in main_metrics() if m in rows]
    found = [_told(row, metric, ordered) for metric, (_, row) in zip(own, rows.iterrows(), strict=True)]
    changed = rows.assign(**{COLUMN: pd.Series(found, index=rows.index, dtype=object)})
    return changed if any(found) else changed.drop(columns=COLUMN)


def _plain(metric: str | None) -> str | None:
    return METRICS[metric].plain or metric if metric in METRICS else metric


def _told(row: pd.Series, metric: str | None, ordered: list[str]) -> str | None:
    """The metric; None where a table infers it from the values of the row."""
    first = next((m for m in ordered if pd.notna(row[m])), None)
    return None if metric == first and metric in BUILT_IN else metric
