"""Baselines that a table lacks: what is said in place of drops."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from blip2sweep.analysis.main_metric import metrics_of
from blip2sweep.console.remarks import many
from blip2sweep.results.forgotten import acts


def without_baseline(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a metric and no drop, because the cell that they name as their baseline has no result."""
    if not {"baseline", "part", "key"} <= set(table):
        return table.iloc[:0]
    metrics = [m for m in metrics_of(table) if m in table]
    own = [f"baseline_{m}" for m in metrics if f"baseline_{m}" in table]
    lacking = table[metrics].notna().any(axis=1) & ~table[own].notna().any(axis=1)
    if not lacking.any():
        return table.iloc[:0]
    done = table.loc[table["status"].eq("done"), "key"] if "status" in table else table["key"]
    apart = table["part"].ne("none") & table["baseline"].notna() & ~table["baseline"].isin(done)
    return table[lacking & apart]


def absent_baselines(table: pd.DataFrame, output_dir: Path) -> list[str]:
    """A line for each baseline that rows lack: that it is forgotten and how it comes back, or that it has no result."""
    rows = without_baseline(table)
    if rows.empty:
        return []
    forgotten = {key for act in acts(output_dir) for key in act.keys}
    counts = rows["baseline"].astype(str).value_counts(sort=False)
    return [_told(key, int(n), key in forgotten) for key, n in counts.items() if isinstance(key, str)]


def _told(key: str, rows: int, forgotten: bool) -> str:
    whose = f"the baseline of {many(rows, 'cell')}"
    if forgotten:
        return f"{key}, {whose}, is forgotten, so they have no drop; right: `blip2sweep forget --undo {key}`"
    return f"{key}, {whose}, has no result, so they have no drop; right: the sweep's command again, which runs it"
