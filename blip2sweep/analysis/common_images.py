"""Which of several cells loses least, where some of them stopped early.

The values of the table are of the images that each cell has seen, and of two cells the one of the easier images would
win. So two cells are ranked by what they lose on the images that both have.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cmp_to_key

import numpy as np
import pandas as pd

from blip2sweep.analysis.cell_row import number
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.resamples import resample_all
from blip2sweep.analysis.stopped import STOPPED
from blip2sweep.metrics.prefix import is_share

NAMES = ("key", "other")  # columns of the cells of a row: an effect is the drop of `other` minus that of `key`
BY_COMMON = " (in the order on the images that they share)"
BY_VALUES = " (in the order of values from unlike images)"


def lost_on_common(draws: Draws, keys: Iterable[str]) -> dict[str, float]:
    """{key: what the cell loses} on the images that all of these cells have.

    As a share of the baseline there, times the whole baseline, where the metric is read as a share.
    """
    own = list(dict.fromkeys(keys))
    there, scale = shared(draws, own)
    base = draws.metric.value(there.arrays[there.baseline])
    return {k: float(scale * draws.metric.drop(base, draws.metric.value(there.arrays[k]))) for k in own}


def shared(draws: Draws, keys: Sequence[str]) -> tuple[Draws, float]:
    """(these cells and the baseline on the images that all of them have, without resamples; by what a loss there is
    multiplied so that it is one of the whole baseline)."""
    masks = [draws.seen[k] for k in keys if k in draws.seen]
    there = draws.only(keys).on(np.logical_and.reduce(masks)) if masks else draws.only(keys)
    base, whole = draws.metric.value(there.arrays[there.baseline]), draws.value(draws.baseline)
    return there, whole / base if base > 0 and is_share(draws.metric) else 1.0


def resampled_on_common(draws: Draws, keys: Sequence[str]) -> Draws:
    """These cells with their resamples on the images that all of them have, whose losses are those of the whole baseline."""
    there, scale = shared(draws, keys)
    found = resample_all(draws.metric, there.image_ids, there.arrays, there.baseline, {})
    return replace(there, resampled={k: scale * v for k, v in found.items()}, seen={})


def least_first(rows: pd.DataFrame, draws: Draws | None, value: str = "drop") -> pd.DataFrame:
    """The rows in the order of a column of losses, from the least to the most; equal ones stay as they are.

    Two rows of which a cell stopped are compared by `lost_on_common`. rows: with `key`, and where a loss is the
    difference of two cells with `other`. Three cells that stopped at three places may each lose less than the next;
    then one of them comes first.
    """
    if draws is None or not draws.seen.keys() & set(_keys(rows)):
        return rows.sort_values(value, kind="stable")
    every = rows.to_dict("records")

    def further(i: int, j: int) -> int:
        more = _more(every[i], every[j], draws, value)
        return int(more > 0) - int(more < 0)

    return rows.iloc[sorted(range(len(rows)), key=cmp_to_key(further))]


def order_note(ordered: pd.DataFrame, draws: Draws | None, value: str = "drop") -> str:
    """What a text says behind rows, in the order of `least_first`: nothing where their values say the same, and the images
    behind them are alike."""
    if draws is not None and draws.seen.keys() & set(_keys(ordered)):
        return "" if (np.diff(ordered[value].to_numpy(float)) >= 0).all() else BY_COMMON
    told = ordered[STOPPED] if STOPPED in ordered else pd.Series("", index=ordered.index)
    return BY_VALUES if len(ordered) > 1 and told.map(lambda t: isinstance(t, str) and t != "").any() else ""


def _more(one: Mapping[Hashable, object], other: Mapping[Hashable, object], draws: Draws, value: str) -> float:
    """By how much one row loses more than another."""
    keys = _of(one) + _of(other)
    if not draws.seen.keys() & {*keys} or any(k not in draws for k in keys):
        return number(one, value) - number(other, value)
    lost = lost_on_common(draws, keys)
    first, second = (_effect([lost[k] for k in _of(row)]) for row in (one, other))
    return first - second


def _effect(lost: Sequence[float]) -> float:
    return lost[0] if len(lost) == 1 else lost[1] - lost[0]


def _of(row: Mapping[Hashable, object]) -> list[str]:
    return [str(row[name]) for name in NAMES if isinstance(row.get(name), str)]


def _keys(rows: pd.DataFrame) -> Iterable[str]:
    return (k for name in NAMES if name in rows for k in rows[name] if isinstance(k, str))
