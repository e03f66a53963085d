"""The figures for a paper: PNG or PDF by matplotlib, from the same frames as the page."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from blip2sweep.analysis.frontier import ALL
from blip2sweep.analysis.prices import HERE, LADDER
from blip2sweep.files import write_atomic
from blip2sweep.reporting.dropoff import COLOURS, MARKERS
from blip2sweep.reporting.figure import Figure
from blip2sweep.reporting.interaction import draw_panel
from blip2sweep.reporting.metric_text import text_of_label
from blip2sweep.reporting.models_picture import draw_models
from blip2sweep.reporting.panels import HIGH, WIDE, columns, errors, left_out, legend, panels, style
from blip2sweep.reporting.static_steps import draw_importance, draw_kinds, draw_recovery, draw_together

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

Draw = Callable[["Picture", pd.DataFrame, str], None]
MOST_PLACES = 40
SIZE_LABELS = {"bits_per_weight": "bits per weight, whole model", "model_bytes": "bytes, whole model",
               "seconds_batch_1": "seconds an image, batch 1", "seconds_batch_largest": "seconds an image, largest batch", "export_bytes": "bytes on disk, all files", "params": "parameters, whole model",
               "gflops": "GFLOP an image", "latency_ms_median": "ms an image, batch 1, median"}  # fmt: skip


def write_static(made: Sequence[Figure], folder: Path, kind: str, metric: str) -> list[Path]:
    """Write one file for each figure that has data, and return their paths. kind: png or pdf. metric: its label."""
    from matplotlib.figure import Figure as Picture

    paths = []
    for figure in made:
        if figure.empty or figure.name not in (*DRAW, "map"):
            continue
        picture = Picture(figsize=(WIDE, HIGH), layout="constrained")
        if figure.name == "map":
            _map(picture, figure, metric)
        else:
            DRAW[figure.name](picture, figure.data, metric)
        legend(picture)
        buffer = io.BytesIO()
        picture.savefig(buffer, format=kind, dpi=160)
        paths.append(folder / f"{figure.name}.{kind}")
        write_atomic(paths[-1], buffer.getvalue())
    return paths


def _dropoff(picture: Picture, data: pd.DataFrame, metric: str) -> None:
    main = data[data["headline"]]
    if main.empty:
        picture.text(0.5, 0.5, "no whole part was run at one width", ha="center")
        return
    widths, parts = sorted(main["width"].unique(), reverse=True), list(main["parts"].unique())
    for setting, axis in panels(picture, list(main["setting"].unique())):
        own = main[main["setting"] == setting]
        axis.axhline(100, color="0.5", linewidth=1, linestyle="--")
        half = (100 * own["noise"] / own["baseline"].abs()).max()
        if half == half:
            axis.axhspan(100 - half, 100 + half, color="0.85", zorder=0, label="noise floor")
        for name, line in own.groupby("parts", sort=False):
            i, seeds = parts.index(name), line[line.get("point", pd.Series(False, index=line.index))]
            x = seeds["width"].map(widths.index).to_numpy(float) + 0.04 * i
            axis.plot(x, seeds["retained"], linestyle="", **style(i))  # further calibration seeds
            line = line.drop(seeds.index).sort_values("width", ascending=False)
            x = line["width"].map(widths.index).to_numpy(float) + 0.04 * i
            bars = errors(line, "retained", "retained_low", "retained_high")
            axis.errorbar(x, line["retained"], yerr=bars, capsize=2, label=name, **style(i))
        ticks = [w for w in widths if (own["width"] == w).any()]  # only where something was run
        axis.set_xticks([widths.index(w) for w in ticks], [f"{w:g}" for w in ticks])
        axis.set(xlabel="bits", ylabel=text_of_label(metric).axis, xlim=(-0.5, len(widths) - 0.5))


def _frontier(picture: Picture, data: pd.DataFrame, metric: str) -> None:
    sizes = [s for s in data["by"].unique() if s != "model_bytes"]  # bytes are bits per weight on another scale
    for by, axis in panels(picture, sizes):
        shown = data[data["by"] == by]
        for i, (setting, own) in enumerate(shown.groupby("setting", sort=False)):
            own, colour = own.sort_values(by), COLOURS[i % len(COLOURS)]
            if setting == ALL:  # the frontier over all kinds lies behind those of the kinds
                axis.step(own[by], own["value"], where="post", color="0.8", linewidth=5, label=setting, zorder=0)
                continue
            axis.step(own[by], own["value"], where="post", color=colour, label=setting)
            # Hollow: not distinguishable from the baseline. Hollow with a dot: there is no interval.
            faces = [colour if like is False else "none" for like in own["like_baseline"]]
            axis.scatter(own[by], own["value"], facecolors=faces, edgecolors=colour, marker=MARKERS[i % 7])
            unknown = own[[like is None for like in own["like_baseline"]]]
            axis.scatter(unknown[by], unknown["value"], color=colour, s=4)
        held = ", held-out images" if shown["held_out"].any() else ""
        axis.set(xlabel=SIZE_LABELS[by], ylabel=metric + held, title="")


def _blocks(picture: Picture, data: pd.DataFrame, metric: str) -> None:
    own = data[data["headline"]]
    spread = own.groupby(["setting", "width", "part", "kind"])["effect"].agg(lambda e: e.max() - e.min())
    setting, width = cast("tuple[str, float]", spread.groupby(["setting", "width"]).sum().idxmax())
    own = own[(own["setting"] == setting) & (own["width"] == width)]
    kinds = sorted(own["kind"].unique(), reverse=True)
    likely = bool(own["nll"].notna().any())
    for part, axes in columns(picture, list(own["part"].unique()), 2 if likely else 1):
        axis, below = axes[0], axes[-1]
        for i, kind in enumerate(kinds):
            line = own[(own["part"] == part) & (own["kind"] == kind)].sort_values("first")
            x = (line["first"] + line["last"]) / 2
            bars = errors(line, "effect", "low", "high")
            axis.errorbar(x, line["effect"], yerr=bars, capsize=2, label=kind, **style(i))
            ends = [line[end].astype(float) for end in ("band_low", "band_high")]
            axis.fill_between(x, *ends, alpha=0.15, color=COLOURS[i])
            if likely:
                below.plot(x, line["nll"].astype(float), **style(i))
                below.set(ylabel="ΔNLL")
        below.set(xlabel="block")
        axis.set(ylabel=f"effect on {metric}")
        axis.set_title(f"{part}, {setting}, {width:g} bits", fontsize=9)


def _map(picture: Picture, figure: Figure, metric: str) -> None:
    """The map of the setting with most panels."""
    setting = max(figure.layouts, key=lambda s: len(figure.layouts[s].panels))
    layout, shown = figure.layouts[setting], figure.data[figure.data["setting"].isin([setting, "none"])]
    widths = {p.title: p.at for p in layout.panels}
    for name, axis in panels(picture, list(widths)):
        image = draw_panel(axis, shown, layout, widths[name])
    picture.colorbar(image, ax=picture.axes, shrink=0.6, label=f"{text_of_label(metric).worse} of {metric}, {setting}")


def _prices(picture: Picture, data: pd.DataFrame, metric: str) -> None:
    """The way down from full precision: one curve for the ladder, or one for each part where parts were run alone."""
    run, sign = data[(data["kind"] != HERE) & data["key"].notna()], 1 if text_of_label(metric).higher_is_better else -1
    parts, name, scale = list(dict.fromkeys(data["part"])), *_unit(run)
    for setting, axis in panels(picture, list(run["setting"].unique())):
        own = run[run["setting"] == setting]
        ladder = own[own["kind"] == LADDER]
        for _, way in [("", ladder)] if len(ladder) else own.groupby("part", sort=False):
            first = way.iloc[0]
            x = [first["model_bytes"] + first["saved_bytes"], *way["model_bytes"]]
            axis.plot(
                np.array(x) / scale, [first["value"] + sign * first["lost"], *way["value"]], color="0.6", linewidth=1
            )
            for part, steps in way.groupby("part", sort=False):
                axis.plot(
                    steps["model_bytes"] / scale, steps["value"], linestyle="", label=part, **style(parts.index(part))
                )
        axis.set(xlabel=f"{name}, whole model", ylabel=metric)
    if run.empty:
        picture.text(0.5, 0.5, "no step from full precision was run", ha="center")


def _unit(run: pd.DataFrame) -> tuple[str, float]:
    largest = (run["model_bytes"] + run["saved_bytes"]).max()
    return ("MB", 1e6) if not largest < 1e7 else ("kB", 1e3)


def _shapley(picture: Picture, data: pd.DataFrame, metric: str) -> None:
    terms = list(data.loc[data["kind"] == "part", "term"].unique())
    for setting, axis in panels(picture, list(data["setting"].unique())):
        own = data[data["setting"] == setting]
        widths = sorted(own["width"].unique(), reverse=True)
        table = own[own["kind"] == "part"].pivot_table(index="width", columns="term", values="value")
        table = table.reindex(index=widths, columns=[t for t in terms if t in table])
        up, down = np.zeros(len(widths)), np.zeros(len(widths))
        for term in table:
            values, i = table[term].to_numpy(float), terms.index(term)
            bottom = np.where(values >= 0, up, down)
            axis.bar(range(len(widths)), values, bottom=bottom, color=COLOURS[i], label=term, width=0.6)
            up, down = up + np.clip(values, 0, None), down + np.clip(values, None, 0)
        whole = own[own["kind"] == "whole"].groupby("width").first().reindex(widths)
        bars = errors(whole, "value", "low", "high")
        axis.errorbar(range(len(widths)), whole["value"], yerr=bars, label="interaction", fmt="D", mfc="none", color="k",
                      capsize=2)  # fmt: skip
        axis.set_xticks(range(len(widths)), [f"{w:g}" for w in widths])
        axis.set(xlabel="bits", ylabel=f"{text_of_label(metric).worse} of {metric}")


def _methods(picture: Picture, data: pd.DataFrame, metric: str) -> None:
    every = list(data["label"].unique())
    places = every[:MOST_PLACES][::-1]
    for _, axis in panels(picture, [""]):
        picture.set_size_inches(WIDE, max(HIGH, 1.2 + 0.22 * len(places)))
        axis.axvline(0, color="0.5", linewidth=1, linestyle=":")
        for i, (setting, own) in enumerate(data[data["label"].isin(places)].groupby("setting", sort=False)):
            y = [places.index(p) + 0.1 * i for p in own["label"]]
            bars, shown = errors(own, "gain", "low", "high"), style(i)
            axis.errorbar(own["gain"], y, xerr=bars, fmt=shown["marker"], capsize=2, label=str(setting),
                          color=shown["color"], markersize=shown["markersize"])  # fmt: skip
        axis.set_yticks(range(len(places)), [p if len(p) < 48 else p[:47] + "…" for p in places], fontsize=7)
        axis.set(xlabel=text_of_label(metric).gain)
    left_out(picture, len(places), len(every), "recipes")


DRAW: dict[str, Draw] = {
    "dropoff": _dropoff, "frontier": _frontier, "blocks": _blocks, "prices": _prices, "shapley": _shapley,
    "methods": _methods, "models": draw_models,
    "kinds": draw_kinds, "importance": draw_importance, "recovery": draw_recovery, "together": draw_together,
}  # fmt: skip
