"""The drop-off picture: the metric in % of the baseline against bits, a curve for each part, paired 95 % bars."""

from __future__ import annotations

import io
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pandas as pd
from numpy.typing import NDArray

from blip2sweep.analysis.cells import rounded
from blip2sweep.analysis.main_metric import main_metric
from blip2sweep.analysis.recipes import part_names
from blip2sweep.files import write_atomic
from blip2sweep.metrics import METRICS
from blip2sweep.reporting.drawn_before import ROWS, drawn_before, rows_digest
from blip2sweep.reporting.dropoff_roles import Panel, PanelRow, role_panels
from blip2sweep.reporting.metric_text import metric_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which every kind of colour vision can tell apart. Markers repeat what colours say.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Columns of further steps, and what stands before their values in the name of a curve.
FURTHER = {"blocks_dropped": "without ", "sparsity": "", "recover": ""}
MOST_CURVES, MOST_PANELS, MOST_ROWS = 14, 6, 4


def draw_dropoff(table: pd.DataFrame, path: Path) -> Path | None:
    """Write the picture of a sweep's rows; a copy where a sweep beside it has the same one.

    Returns its path, or None where no cell has a width, a drop and a baseline.
    """
    cells = _drawable(table)
    if cells.empty:
        return None
    rows = rows_digest(cells)
    write_atomic(path, drawn_before(path, rows) or _png(cells, rows))
    return path


def _png(cells: pd.DataFrame, rows: str) -> bytes:
    figure = _drawn(role_panels(cells) or [_method_panels(cells)])
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={ROWS: rows})
    return buffer.getvalue()


def _drawn(rows: list[PanelRow]) -> Figure:
    """The figure of these rows. Rows of a picture have one scale each. It is made without pyplot, whose backend is the
    caller's: a notebook goes on to show its own pictures."""
    from matplotlib.figure import Figure

    across, down = len(rows[0].panels), min(len(rows), MOST_ROWS)
    wide = 5.6 if not rows[0].curves else 4.0
    figure = Figure(figsize=(wide * across, 4.2 * down))
    axes = figure.subplots(down, across, squeeze=False, sharey="row")
    for row, line in zip(rows, axes, strict=False):
        for panel, axis in zip(row.panels, line, strict=True):
            if panel is None:
                axis.set_visible(False)
                continue
            metric = panel.cells["metric"].iloc[0]
            _panel(axis, panel.cells, metric, row.curves)
            axis.set_title(panel.title, fontsize=10)
            axis.set_ylabel(metric_text(metric).axis)
    there, shown = sum(row.there for row in rows), sum(len(row.panels) for row in rows[:down])
    if there > shown:
        figure.suptitle(f"the first {shown} of {there} panels; all are in the table", fontsize=8)
    return figure


def _method_panels(cells: pd.DataFrame) -> PanelRow:
    """A panel for each model, task and method."""
    named = (cells[name].tolist() for name in ("model", "task", "method"))
    every = list(dict.fromkeys(zip(*named, strict=True)))
    panels = list[Panel | None]()
    for model, task, method in every[:MOST_PANELS]:
        chosen = cells[(cells["model"] == model) & (cells["task"] == task) & same(cells["method"], method)]
        panels.append(Panel(f"{model}, {task}, {method or 'several methods'}", chosen))
    return PanelRow(panels, len(every))


def same(values: pd.Series, value: str | None) -> pd.Series:
    """Which values equal one that may be null: a recipe of several methods has no method."""
    return values.isna() if pd.isna(value) else values == value


def _drawable(table: pd.DataFrame) -> pd.DataFrame:
    """The cells of one width, with `metric`, the main metric of their task, and `line`, the name of their curve."""
    rows = _those(table, (table["part"] != "none") & (table["status"] == "done"))
    tasks = rows["task"].dropna().unique()
    metrics = rows["task"].map({task: main_metric(_those(rows, rows["task"] == task)) for task in tasks})
    known = pd.Series(False, index=rows.index)
    for metric in (m for m in metrics.dropna().unique() if f"drop_{m}" in rows):
        known |= (metrics == metric) & rows[f"drop_{metric}"].notna()
    rows, width = _those(rows.assign(metric=metrics), known), cache(_width)
    rows = rows.assign(bits=np.array([width(text) for text in rows["recipe_json"].tolist()], float))
    rows = rows.assign(line=_curve_names(rows))
    return _those(rows, rows["bits"].notna())


def _those(rows: pd.DataFrame, chosen: pd.Series) -> pd.DataFrame:
    """The chosen rows: the frame itself where it is all of them, since to copy 100,000 takes its time."""
    return rows if chosen.all() else rows[chosen]


def _width(recipe_json: str) -> float:
    """The one width of a recipe, or NaN where it has several."""
    found = {float(e["bits"]) for e in orjson.loads(recipe_json) if "bits" in e}
    return found.pop() if len(found) == 1 else math.nan


def _curve_names(rows: pd.DataFrame) -> list[str]:
    """The name of each row's curve: `vision`, or `vision first mlp group32` where the sweep varies those too.

    What further steps do is always in it: `language without language:4-5`.
    """
    varied = [
        c
        for c in (
            "dtype",
            *(["stored"] if rounded(rows) else []),
            "samples",
            "blocks",
            "layers",
            "strategy",
            "group_size",
        )
        if c in rows and rows[c].nunique() > 1
    ]
    words = [_words(rows[c]) for c in ("part", *varied)]
    words += [_words(rows[c], before) for c, before in FURTHER.items() if c in rows]
    return [" ".join([w for w in own if w is not None]) for own in zip(*words, strict=True)]


def _words(values: pd.Series, before: str = "") -> list[str | None]:
    """The values as texts, each behind `before`; None of those that are null."""
    return [f"{before}{v}" if there else None for v, there in zip(values.tolist(), values.notna(), strict=True)]


def _panel(axis: Axes, cells: pd.DataFrame, metric: str, named: list[str]) -> None:
    """Draw a panel. named: all curves of the picture in their order; empty where the panel has its own."""
    widths = sorted(cells["bits"].unique())
    axis.axhline(100, color="0.5", linewidth=1, linestyle="--")
    curves = named or _by_part(cells)
    for i, name in enumerate(curves[:MOST_CURVES]):
        own = cells[cells["line"] == name].sort_values("bits")
        if own.empty:
            continue
        # Widths are even steps on the axis. Curves are shifted a little so that their bars do not hide each other.
        x = own["bits"].map(widths.index).to_numpy(float) + 0.04 * (i - (min(len(curves), MOST_CURVES) - 1) / 2)
        _curve(axis, x, own, metric, i)
    _noise(axis, cells, metric)
    axis.set_xticks(range(len(widths)), [f"{w:g}" for w in widths])
    axis.set_xlabel("bits")
    axis.set_xlim(len(widths) - 0.5, -0.5)
    axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(
        frameon=False, fontsize=8, title=None if len(curves) <= MOST_CURVES else f"first {MOST_CURVES} of {len(curves)}"
    )


def _by_part(cells: pd.DataFrame) -> list[str]:
    """The names of the curves in the order of the report's colours."""
    order = part_names(cells)
    place = cache(lambda parts: _place(parts, order))
    return sorted(dict.fromkeys(cells["line"].tolist()), key=lambda name: place(name.split(maxsplit=1)[0]))


def _place(parts: str, order: list[str]) -> tuple[int, list[int]]:
    """The sorting key of a set of parts: single parts first, in the order in which the model runs them."""
    named = order if parts == "all" else parts.split("+")
    return len(named), [order.index(p) for p in named if p in order]


def _curve(axis: Axes, x: NDArray[np.float64], cells: pd.DataFrame, metric: str, i: int) -> None:
    base = cells[f"baseline_{metric}"].abs()
    found = [100 * METRICS[metric].retained(base, cells[f"drop_{metric}{end}"]) for end in ("", "_low", "_high")]
    left, lower, upper = found[0], np.fmin(*found[1:]).clip(lower=0), np.fmax(*found[1:])
    bars = [(left - lower).clip(lower=0), (upper - left).clip(lower=0)]
    style = "-" if i < len(COLOURS) else ":"
    axis.errorbar(x, left, yerr=bars, color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], capsize=3,
                  linestyle=style, label=cells["line"].iloc[0])  # fmt: skip


def _noise(axis: Axes, cells: pd.DataFrame, metric: str) -> None:
    """The half-precision noise floor as a band around 100 %."""
    if f"noise_{metric}" in cells and cells[f"noise_{metric}"].notna().any():
        half = float((100 * cells[f"noise_{metric}"] / cells[f"baseline_{metric}"].abs()).max())
        axis.axhspan(100 - half, 100 + half, color="0.85", zorder=0, label="noise floor")
