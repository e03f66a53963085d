"""Methods compared on matched cells only: the same recipe but for the method, at the same size."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from blip2sweep.analysis.bands import percentile
from blip2sweep.analysis.cells import entries
from blip2sweep.analysis.draws import Draws

REFERENCE = "rtn"
SAME_SIZE = 0.02  # bits per weight


def matched(cells: pd.DataFrame, metric: str, draws: Draws | None, reference: str = REFERENCE) -> pd.DataFrame:
    """Each cell against the reference method's cell of the same targets and widths, bits per weight within .02.

    `gain` is the reference's drop minus the method's: positive is better than the reference. `seed` tells calibration
    seeds apart, where there are several; they are points and are not folded into the interval.
    """
    rows = cells[(cells["part"] != "none") & cells["method"].notna() & (cells["method"] != "mixed")]
    places: dict[str, list[dict[Any, Any]]] = {}
    for row in rows.to_dict("records"):
        places.setdefault(_place(row["recipe_json"]), []).append(row)
    found = [_pair(r, ref, metric, draws) for same in places.values() for ref in _reference(same, reference)
             for r in same if r["method"] != reference and _same_size(r, ref)]  # fmt: skip
    return pd.DataFrame(found)


def _place(recipe_json: str) -> str:
    """Targets and widths of a recipe, whatever the method."""
    return json.dumps([(e["target"], e["bits"]) for e in entries(recipe_json)])


def _reference(same: list[dict[Any, Any]], reference: str) -> list[dict[Any, Any]]:
    return [r for r in same if r["method"] == reference]


def _same_size(one: dict[Any, Any], other: dict[Any, Any]) -> bool:
    return abs(one["bits_per_weight"] - other["bits_per_weight"]) <= SAME_SIZE


def _pair(row: dict[Any, Any], ref: dict[Any, Any], metric: str, draws: Draws | None) -> dict[str, Any]:
    ends = np.array([np.nan]), np.array([np.nan])
    if draws is not None and row["key"] in draws and ref["key"] in draws:
        ends = percentile((draws.drop(ref["key"]) - draws.drop(row["key"]))[None])
    told = {c: row[c] for c in ("key", "method", "setting", "line", "parts", "width", "bits_per_weight")}
    seed = row.get("calibration_seed")
    gain = ref[f"drop_{metric}"] - row[f"drop_{metric}"]
    return {**told, "seed": seed, "reference": ref["key"], "gain": gain, "low": ends[0][0], "high": ends[1][0]}
