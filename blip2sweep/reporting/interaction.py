"""The layout of the interaction map for any parts: two parts are the axes, and each width of the others is a panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from matplotlib.patches import Rectangle

CONNECTOR = "connector"


@dataclass(frozen=True)
class Panel:
    """One panel of the map. title: such as `connector 4`. at: {part: width in bits} of its cells."""

    title: str
    at: dict[str, float]


@dataclass(frozen=True)
class Layout:
    """x, y: the parts whose widths are the axes. single: the number of panels left out because they have one cell."""

    x: str
    y: str
    panels: list[Panel] = field(default_factory=list)
    single: int = 0


def layouts(data: pd.DataFrame, parts: Sequence[str], roles: Mapping[str, str]) -> dict[str, Layout]:
    """{setting: layout} of the settings that can be drawn.

    data: as `width_grid` gives it. roles: {part: role}, as far as they are known.
    """
    made = {
        s: _layout(data[data["setting"].isin([s, "none"])], parts, roles) for s in map(str, data["setting"].unique())
    }
    return {s: layout for s, layout in made.items() if s != "none" and layout is not None and layout.panels}


def free(width: float) -> str:
    """A width as text; a dash where the part is left alone."""
    return "–" if width == 16 else f"{width:g}"


def why_not(data: pd.DataFrame, parts: Sequence[str]) -> str:
    """A sentence on why nothing is drawn, with a blank before it: too few parts were run at several widths."""
    varied = [p for p in parts if p in data and data[p].nunique() > 1]
    if len(varied) > 1:
        return " No method has several cells that vary two parts."
    return f" Only {varied[0]} was run at several widths." if varied else ""


def _layout(shown: pd.DataFrame, parts: Sequence[str], roles: Mapping[str, str]) -> Layout | None:
    """Two parts that vary are the axes, the later one across.

    Of more, the connector and those of fewest widths make panels.
    """
    varied = [p for p in parts if shown[p].nunique() > 1]
    if len(varied) < 2:
        return None
    ranked = sorted(varied, key=lambda p: (roles.get(p) == CONNECTOR, -shown[p].nunique()))
    y, x = (p for p in varied if p in ranked[:2])
    others = [p for p in varied if p not in (x, y)]
    if not others:
        return Layout(x, y, [Panel("", {})])
    counts = shown.groupby(others).size().sort_index(ascending=False)
    at = [(dict(zip(others, _tuple(widths), strict=True)), int(n)) for widths, n in counts.items()]
    drawn = [Panel(", ".join(f"{p} {free(w)}" for p, w in own.items()), own) for own, n in at if n > 1]
    return Layout(x, y, drawn, len(at) - len(drawn))


def _tuple(widths: object) -> tuple[float, ...]:
    return tuple(map(float, widths)) if isinstance(widths, tuple) else (float(str(widths)),)


# ---- one panel as a picture


def draw_panel(axis: Axes, shown: pd.DataFrame, layout: Layout, at: Mapping[str, float]) -> AxesImage:
    """Draw drops as a heat map with numbers, contours of equal size, and hatches where an interval covers 0.

    shown: all cells of the setting, so that all panels have one scale and the same axes. at: {part: width} of the cells
    in this panel. Returns the image.
    """
    x, y = (sorted(shown[p].unique()) for p in (layout.x, layout.y))
    own = shown[(shown[list(at)] == pd.Series(at, dtype=float)).all(axis=1)]
    grid, size = (
        own.pivot_table(index=layout.y, columns=layout.x, values=v).reindex(index=y, columns=x)
        for v in ("drop", "size")
    )
    image = axis.imshow(grid, cmap="cividis_r", vmin=0, vmax=shown["drop"].max(), origin="lower", aspect="auto")
    _write_numbers(axis, image, grid, float(shown["drop"].max()))
    if size.notna().all().all() and min(size.shape) > 1:
        axis.clabel(axis.contour(size, colors="k", linewidths=0.7, linestyles=":"), fontsize=7)
    for row in own[(own["low"] <= 0) & (own["high"] >= 0)].to_dict("records"):
        axis.add_patch(_hatched((x.index(row[layout.x]) - 0.5, y.index(row[layout.y]) - 0.5)))
    axis.set_xticks(range(len(x)), [free(w) for w in x])
    axis.set_yticks(range(len(y)), [free(w) for w in y])
    axis.set(xlabel=f"{layout.x} bits", ylabel=f"{layout.y} bits")
    return image


def _write_numbers(axis: Axes, image: AxesImage, grid: pd.DataFrame, most: float) -> None:
    for (row, column), drop in np.ndenumerate(grid.to_numpy(float)):
        if drop == drop:
            ink = "w" if drop > most / 2 else "k"
            behind = {"boxstyle": "round,pad=0.1", "fc": image.cmap(image.norm(drop)), "ec": "none"}
            axis.text(column, row, f"{drop:.2f}", ha="center", va="center", fontsize=6, color=ink, bbox=behind)


def _hatched(spot: tuple[float, float]) -> Rectangle:
    from matplotlib.patches import Rectangle

    return Rectangle(spot, 1, 1, fill=False, hatch="///", edgecolor="0.4", linewidth=0)
