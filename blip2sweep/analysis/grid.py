"""The interaction map: widths of the parts against each other, for cells that treat whole parts."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from blip2sweep.analysis.cells import all_blocks, one_seed
from blip2sweep.analysis.recipes import entries, part_names, part_of

FREE = 16  # a part that is left alone


def width_grid(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row a cell whose parts are whole: `setting, <part> …, value, drop, low, high`; 16 where a part is left alone.

    A part is whole where all of its blocks are touched, in the layers of the largest such cell; so the published study
    counts with what its quantizer reached. Of calibration seeds the lowest is shown.
    """
    parts = part_names(cells)
    whole = {p: _largest(cells, p) for p in parts}
    rows = [r for row in one_seed(cells).to_dict("records") if (r := _row(row, parts, whole, metric))]
    return pd.DataFrame(rows, columns=["key", "setting", *parts, "size", "value", "drop", "low", "high", "recipe"])


def _largest(cells: pd.DataFrame, part: str) -> set[str]:
    alone = cells[cells["parts"] == part]
    having = alone if len(alone) else cells[[part in p.split("+") for p in cells["parts"]]]
    having = having[having["recipe_json"].map(lambda text: all_blocks(text, part)).astype(bool)]
    if having.empty:
        return set()
    most = having.sort_values("params_touched")["recipe_json"].iloc[-1]
    return {str(e["target"]) for e in entries(str(most)) if part_of(e) == part}


def _row(row: dict[Any, Any], parts: list[str], whole: dict[str, set[str]], metric: str) -> dict[str, Any] | None:
    listed = entries(row["recipe_json"])
    widths: dict[str, float] = {}
    for part in parts:
        own = [e for e in listed if part_of(e) == part]
        if own and ({str(e["target"]) for e in own} != whole[part] or len({e["bits"] for e in own}) > 1):
            return None
        widths[part] = float(own[0]["bits"]) if own else float(FREE)
    told = {"key": row["key"], "setting": row["setting"], "size": row["bits_per_weight"], "value": row[metric]}
    ends = {e: row.get(f"drop_{metric}{c}", math.nan) for e, c in (("drop", ""), ("low", "_low"), ("high", "_high"))}
    return {**told, **widths, **ends, "recipe": row["recipe"]}
