"""The Pareto frontier: the most metric at a size. Found on one half of the images, shown on the other."""

from __future__ import annotations

import numpy as np
import pandas as pd

from blip2sweep.analysis.draws import Draws
from blip2sweep.errors import UserError, nearest
from blip2sweep.metrics import METRICS

SIZES = (
    "bits_per_weight",
    "model_bytes",
    "seconds_batch_1",
    "seconds_batch_largest",
)  # seconds an image: packed cells only


def frontier(cells: pd.DataFrame, metric: str, draws: Draws | None, size: str = "bits_per_weight") -> pd.DataFrame:
    """Cells that no other cell of their setting beats in both size and metric.

    Where outputs are there, cells are chosen on one half of the images and `value, drop, low, high` are those of the
    other half: the best of many, judged by what chose it, would look too good. `held_out` says so; imported scores have
    one value only. `like_baseline`: the drop's interval covers 0; None where there is no interval. size: one of SIZES, or
    `latency` for the seconds an image alone takes. Raises UserError where no cell has that size.
    """
    size = _size(cells, size)
    rows = cells[cells[size].notna() & (cells["part"] != "none")].copy()
    halves = (draws.half(True), draws.half(False)) if draws is not None else None
    rows["held_out"] = [draws is not None and k in draws for k in rows["key"]]
    if rows["held_out"].any():  # single published values cannot compete with held-out ones
        rows = rows[rows["held_out"]]
    sign = METRICS[metric].sign
    chosen_on = [draws.value(k, halves[0]) if draws and halves and h else v
                 for k, h, v in zip(rows["key"], rows["held_out"], rows[metric], strict=True)]  # fmt: skip
    rows["chosen_on"] = chosen_on
    kept = [_pareto(own, size, sign) for _, own in rows.groupby("setting")]
    found = pd.concat(kept) if kept else rows.iloc[:0]
    return _shown(found, metric, draws, size)


def _size(cells: pd.DataFrame, size: str) -> str:
    column = "seconds_batch_1" if size == "latency" else size
    if column not in SIZES:
        raise UserError(f"frontier: size {size} is unknown; {nearest(size, [*SIZES, 'latency'])}")
    if column not in cells or cells[column].isna().all():
        raise UserError(f"frontier: no cell has {column}; right: cells of quant.packed=true, whose time is measured")
    return column


def _pareto(own: pd.DataFrame, size: str, sign: int) -> pd.DataFrame:
    """From small to large, each better than all smaller ones."""
    ordered = own.assign(_value=sign * own["chosen_on"]).dropna(subset=["_value"])
    ordered = ordered.sort_values([size, "_value"], ascending=[True, False])
    best = ordered["_value"].cummax()
    return ordered[(ordered["_value"] >= best) & (ordered["_value"] > best.shift(fill_value=-np.inf))]


def _shown(found: pd.DataFrame, metric: str, draws: Draws | None, size: str) -> pd.DataFrame:
    columns = [
        "key",
        "setting",
        "line",
        "parts",
        "width",
        "seed",
        "bits_per_weight",
        "model_bytes",
        "held_out",
        "recipe",
    ]
    out = found[list(dict.fromkeys([*columns, size]))].reset_index(drop=True)
    out["value"], out["drop"] = found[metric].to_numpy(), found[f"drop_{metric}"].to_numpy()
    out["low"] = out["high"] = np.nan
    own = out[out["held_out"]]
    if draws is not None and len(own):
        other = draws.only(list(own["key"])).on(draws.half(False))
        out.loc[own.index, "value"] = [other.value(k) for k in own["key"]]
        out.loc[own.index, ["drop", "low", "high"]] = [other.paired(k) for k in own["key"]]
    ends = zip(out["low"], out["high"], strict=True)
    out["like_baseline"] = [None if pd.isna(low) else bool(low <= 0 <= high) for low, high in ends]
    return out
