"""Whether a cell keeps a share of its baseline's metric, as far as the paired interval knows.

The interval is that of the ratio of both metrics on the same images (metrics/intervals.py), 95 % two-sided, so that each
of its ends is also a one-sided bound at 97.5 %: an answer of yes or no is wrong in at most 1 of 40 samples of images.
Of a cell that stopped the interval has 99.5 %, so that the answer is no oftener wrong for having been looked at often.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.draws import Draws
from blip2sweep.metrics import METRICS, Kept, unseen

YES, NO, NOT_KNOWN = "yes", "no", "not known"
NOTHING = Kept(math.nan, math.nan, math.nan)


class OnImages(NamedTuple):
    """What a cell keeps, and on how many images of which kind."""

    kept: Kept
    images: int
    held_out: bool  # whether other images chose the cell


def keeps(kept: Kept, share: float, images: int) -> str:
    """Whether at least `share` of the baseline is kept. Yes where the whole interval does, no where nothing of it does.

    Not known where only a part of it does, where there is no interval, and where so few images were seen that a break
    of as much could have been missed (the rule of three: 369 images show a loss of 1 %), whatever their interval.
    """
    if not (math.isfinite(kept.low) and math.isfinite(kept.high)):
        return NOT_KNOWN
    if kept.high < share:
        return NO
    return YES if kept.low >= share and unseen(images) <= 1 - share else NOT_KNOWN


def kept_on(key: str, draws: Draws | None, held_out: bool) -> OnImages | None:
    """What a cell keeps on the half of the images that did not choose it, or on all; None without outputs."""
    if draws is None or key not in draws:
        return None
    own = draws.only([key])
    shown = own.on(own.half(False)) if held_out else own
    return OnImages(shown.kept(key), shown.count(key), held_out)


def kept_of_row(row: Row, metric: str) -> Kept:
    """What a cell keeps by the drop and its interval in the table, as if the baseline's own metric were known exactly.

    For rows whose outputs are gone.
    """
    base = number(row, f"baseline_{metric}")
    if not base > 0:
        return NOTHING
    share, *ends = (METRICS[metric].retained(base, number(row, f"drop_{metric}{end}")) for end in ("", "_low", "_high"))
    return Kept(share, min(ends), max(ends)) if all(map(math.isfinite, ends)) else Kept(share, math.nan, math.nan)
