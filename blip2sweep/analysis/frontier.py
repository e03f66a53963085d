"""The Pareto frontier: the best metric at each size, chosen on one half of the images and shown on the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.steps import UNCOMPRESSED
from blip2sweep.errors import UserError, nearest
from blip2sweep.metrics import METRICS

# Seconds are for one image; packed cells alone have them. export_bytes: all files, of back ends that run files.
SIZES = ("bits_per_weight", "model_bytes", "seconds_batch_1", "seconds_batch_largest", "export_bytes")
COSTS = ("params", "gflops", "latency_ms_median")  # what further steps change besides
ALL = "all kinds"
SHOWN = ("key", "setting", "line", "parts", "width", "seed", "bits_per_weight", "model_bytes", "held_out", "recipe")


def frontier(cells: pd.DataFrame, metric: str, draws: Draws | None, size: str = "bits_per_weight") -> pd.DataFrame:
    """The cells that no other cell of their setting beats in both size and metric.

    Cells with outputs are chosen on one half of the images, and `value, drop, low, high` are of the other half: the
    best of many looks too good on the images that chose it. `held_out` is True for these cells. A cell that stopped is
    compared with each other one on the images that both have. Imported scores have one value, of all images.
    `like_baseline`: whether the drop's interval covers 0, of 95 %, or 99.5 % of a cell that stopped; None where there is no
    interval. size: one of SIZES or COSTS, or `latency` for the seconds that one image takes. Raises UserError where no cell has
    that size.
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
    better = None  # by values, which are of the same images
    if draws is not None and halves is not None and draws.seen and rows["held_out"].any():
        better = partial(draws.ahead, images=halves[0])
    frontiers = [_pareto(own, size, sign, better) for _, own in rows.groupby("setting")]
    found = pd.concat(frontiers) if frontiers else rows.iloc[:0]
    return _shown(found, metric, draws, size)


def over_all_kinds(cells: pd.DataFrame, metric: str, draws: Draws | None, size: str) -> pd.DataFrame:
    """The frontier of each kind of compression, and behind them that of all kinds together.

    The column `setting` names the kind. A control whose training chose step 0 is the baseline, so it is left out. size:
    one of SIZES or COSTS.
    """
    if "recover_steps" in cells:
        cells = cells[~(cells["what"].eq(UNCOMPRESSED) & cells["recover_steps"].astype(float).eq(0))]
    kinds = frontier(cells.assign(setting=cells["kind"]), metric, draws, size)
    return pd.concat([kinds, frontier(cells.assign(setting=ALL), metric, draws, size)], ignore_index=True)


def _size(cells: pd.DataFrame, size: str) -> str:
    column = "seconds_batch_1" if size == "latency" else size
    if column not in (*SIZES, *COSTS):
        raise UserError(f"frontier: size {size} is unknown; {nearest(size, [*SIZES, *COSTS, 'latency'])}")
    if column not in cells or cells[column].isna().all():
        right = "analysis.latency=true" if column in COSTS else "cells of quant.packed=true, whose time is measured"
        raise UserError(f"frontier: no cell has {column}; right: {right}")
    return column


def _pareto(
    own: pd.DataFrame, size: str, sign: int, better: Callable[[str, str], float] | None = None
) -> pd.DataFrame:  # fmt: skip
    """The cells that are better than all smaller ones, from small to large. better: by how much one cell is better than
    another, where that is not the difference of their values."""
    ordered = own.assign(_value=sign * own["chosen_on"]).dropna(subset=["_value"])
    ordered = ordered.sort_values([size, "_value"], ascending=[True, False])
    if better is not None:
        kept = dict[str, float]()  # {key: size}
        for key, own_size in zip(ordered["key"], ordered[size], strict=True):
            if all(better(key, other) > 0 for other in kept):
                kept = {k: s for k, s in kept.items() if s != own_size} | {key: own_size}  # one of a size, by no values
        return ordered[ordered["key"].isin(list(kept))]
    best = ordered["_value"].cummax()
    return ordered[(ordered["_value"] >= best) & (ordered["_value"] > best.shift(fill_value=-np.inf))]


def _shown(found: pd.DataFrame, metric: str, draws: Draws | None, size: str) -> pd.DataFrame:
    out = found[list(dict.fromkeys([*SHOWN, size]))].reset_index(drop=True)
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
