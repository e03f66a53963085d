"""What the figures for a paper share: panels in rows, error bars, styles of curves, one legend."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypedDict, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from blip2sweep.reporting.dropoff import COLOURS, MARKERS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

V = TypeVar("V")
WIDE, HIGH = 9.0, 4.2  # inches
MOST_PANELS, ACROSS = 12, 4
LETTERS = 170  # of a line of the legend


def panels(picture: Picture, values: Sequence[V]) -> Iterator[tuple[V, Axes]]:
    """(value, axis) of each value, in rows of four. A title of the picture says what is left out."""
    for value, (axis,) in columns(picture, values, 1):
        yield value, axis


def columns(picture: Picture, values: Sequence[V], each: int) -> Iterator[tuple[V, list[Axes]]]:
    """(value, axes) of each value, in rows of four; `each` axes stand one below the other."""
    shown = list(values)[:MOST_PANELS]
    down = max(1, math.ceil(len(shown) / ACROSS))
    across = max(1, math.ceil(len(shown) / down))
    high = HIGH * (1 if down == 1 else 0.75 * down) * (1.4 if each > 1 else 1)
    picture.set_size_inches(max(WIDE, 2.6 * across), high)
    axes = picture.subplots(down * each, across, squeeze=False)
    for i, axis in enumerate(axes.flat):
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_visible((i // across // each) * across + i % across < len(shown))
    for i, value in enumerate(shown):
        row, column = each * (i // across), i % across
        axes[row][column].set_title(str(value), fontsize=10 if across < 3 else 8)
        yield value, [axes[row + j][column] for j in range(each)]
    left_out(picture, len(shown), len(values), "panels")


def left_out(picture: Picture, shown: int, there: int, what: str) -> None:
    """Say in the title that only the first are shown, where there are more."""
    if there > shown:
        picture.suptitle(f"the first {shown} of {there} {what}; all are in the CSV", fontsize=8)


def errors(own: pd.DataFrame, value: str, low: str, high: str) -> NDArray[np.float64]:
    """The lengths of error bars below and above, (2, rows); 0 where there is no interval."""
    ends = [own[value] - own[low], own[high] - own[value]]
    return np.nan_to_num(np.clip(np.array(ends, dtype=float), 0, None))


class Style(TypedDict):
    """Arguments of matplotlib for a curve and its points."""

    color: str
    marker: str
    markersize: int


def style(i: int) -> Style:
    """The style of the i-th curve."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 5}


def legend(picture: Picture) -> None:
    """One legend for all panels, below them, that names each curve once."""
    named: dict[str, Artist] = {}
    for axis in picture.axes:
        handles, labels = axis.get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True)) | named
    if named:
        columns = max(1, min(len(named), 7, LETTERS // (max(map(len, named)) + 6)))
        picture.legend(
            list(named.values()), list(named), loc="outside lower center", ncols=columns, frameon=False, fontsize=8
        )
