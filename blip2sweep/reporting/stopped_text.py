"""What a figure or a table says of the cells in it that stopped early."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from blip2sweep.analysis.stopped import STOPPED, STOPPED_TEXT, of_verdicts, stopped, verdicts_line
from blip2sweep.console.remarks import many
from blip2sweep.reporting.figure import Figure

PLAIN = "view3d"  # the figure without intervals
SUMS = {  # figures of what several cells add up to
    "shapley": "intervals of sums have 95 %, from resamples in which each counts with its own images",
    "together": "a cell and its pieces are compared on the images that all of them have; intervals have 95 %",
}
KEYS = ("key", "key_0", "key_1", "beside", "reference", "other")  # columns of a figure's data that name cells


def with_stopped(figure: Figure, cells: pd.DataFrame) -> Figure:
    """The figure, with a sentence behind its caption where it shows cells that stopped."""
    shown = {str(k) for c in KEYS if c in figure.data for k in figure.data[c].dropna()}
    there = ~of_verdicts(cells) if figure.name in SUMS else cells["key"].isin(shown)
    own = cells[there & stopped(cells)]
    if figure.empty or own.empty or figure.name == PLAIN:
        return figure
    what = SUMS.get(
        figure.name, f"their intervals have {STOPPED_TEXT}, and two cells are compared on the images that both have"
    )
    return replace(figure, caption=f"{figure.caption} {one_or_many(own)} early, after {_range(own)}: {what}.")


def one_or_many(own: pd.DataFrame) -> str:
    """`3 cells stopped`."""
    return f"{many(len(own), 'cell')} stopped"


def _range(own: pd.DataFrame) -> str:
    """`64 to 192 of 1000 images`."""
    least, most, of = (int(v) for v in (own["images"].min(), own["images"].max(), own["images_of"].max()))
    return f"{least} of {of} images" if least == most else f"{least} to {most} of {of} images"


def stopped_notes(table: pd.DataFrame) -> list[str]:
    """The lines under a table that has cells that stopped: what their numbers are, and what they are not for."""
    own = table[stopped(table)]
    if own.empty:
        return []
    lines = [
        f"{one_or_many(own)} early ({STOPPED}, images): a metric is what the cell keeps of the baseline on its images, times the whole "
        f"baseline's; its interval has {STOPPED_TEXT}, whatever made it stop. Of two cells, which is better is said by the images "
        "that both have; the order of a table, and what is marked best in it, go by the values in it"
    ]
    return (
        [*lines, *filter(None, [verdicts_line(table, "Shapley values and predictions")])]
        if of_verdicts(own).any()
        else lines
    )
