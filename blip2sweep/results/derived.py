"""Columns of the table that follow from its other columns and from the sweeps' files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from blip2sweep.metrics.statistics import METRICS
from blip2sweep.recipe.part_bits import width_columns
from blip2sweep.recipe.setting import setting
from blip2sweep.results.sweeps import Sweep


def with_derived(table: pd.DataFrame, sweeps: Iterable[Sweep]) -> pd.DataFrame:
    """The table with `sweeps`, `bits`, `setting` and `retained_<metric>` (columns.py). sweeps: oldest first."""
    named = _names(sweeps)
    found = {
        "sweeps": [named.get(key, []) for key in table["key"].tolist()],
        "bits": _bits(table),
        "setting": _settings(table),
        **_retained(table),
    }
    return pd.concat([table, pd.DataFrame(found, index=table.index)], axis=1)


def _names(sweeps: Iterable[Sweep]) -> Mapping[str, list[str]]:
    """{key: names of the sweeps that asked for it}. A sweep names a key once, however often it is in its file."""
    found: dict[str, list[str]] = {}
    for sweep in sweeps:
        for key in dict.fromkeys(sweep.keys):
            found.setdefault(key, []).append(sweep.name)
    return found


def _bits(table: pd.DataFrame) -> np.ndarray:
    """The one width that all touched parts of a row have, else NaN. A role's width is between those of its parts."""
    widths = table[width_columns(table)].to_numpy(float)
    if not widths.shape[1]:
        return np.full(len(table), np.nan)
    touched = ~np.isnan(widths)
    least = np.where(touched, widths, np.inf).min(axis=1)
    most = np.where(touched, widths, -np.inf).max(axis=1)
    return np.where(least == most, least, np.nan)


def _settings(table: pd.DataFrame) -> list[str | None]:
    if "recipe_json" not in table:
        return [None] * len(table)
    dropped = table["blocks_dropped"].tolist() if "blocks_dropped" in table else [""] * len(table)
    pairs = zip(table["recipe_json"].tolist(), dropped, strict=True)
    return [setting(r, d if isinstance(d, str) else "") if isinstance(r, str) else None for r, d in pairs]


def _retained(table: pd.DataFrame) -> dict[str, pd.Series]:
    """`retained_<metric>` in %, of the metrics that a table may be about. Its ends are in the ledger."""
    found = {}
    for name, metric in METRICS.items():
        if metric.order is not None and f"drop_{name}" in table:
            level = table[f"baseline_{name}"].astype(float).abs()
            drop = table[f"drop_{name}"].astype(float)
            found[f"retained_{name}"] = 100 * metric.retained(level.where(level > 0), drop)
    return found
