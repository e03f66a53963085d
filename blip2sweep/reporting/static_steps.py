"""The figures of further steps for a paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from blip2sweep.analysis.importance import INFLUENCE
from blip2sweep.reporting.dropoff import COLOURS
from blip2sweep.reporting.metric_text import text_of_label
from blip2sweep.reporting.panels import HIGH, WIDE, columns, errors, left_out, panels, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

MOST_PLACES = 40
UNTRAINED = "no recovery"


def draw_kinds(picture: Picture, data: pd.DataFrame, metric: str) -> None:
    """What each recipe keeps: filled of the baseline, with intervals, hollow of its control."""
    every = list(data["what"].unique())
    places = every[:MOST_PLACES][::-1]
    ways = sorted(data["how"].unique())
    for _, axis in panels(picture, [""]):
        picture.set_size_inches(WIDE, max(HIGH, 1.4 + 0.3 * len(places)))
        axis.axvline(100, color="0.5", linewidth=1, linestyle=":")
        for i, how in enumerate(ways):
            own, look = data[(data["how"] == how) & data["what"].isin(places)], style(i)
            y = [places.index(w) + (0.55 / len(ways)) * ((len(ways) - 1) / 2 - i) for w in own["what"]]
            bars = errors(own, "retained", "retained_low", "retained_high")
            axis.errorbar(own["retained"], y, xerr=bars, fmt=look["marker"], color=look["color"], markersize=5, capsize=2,
                          label=how or UNTRAINED)  # fmt: skip
            axis.plot(own["retained_control"], y, look["marker"], markerfacecolor="none", color=look["color"])
        axis.set_yticks(range(len(places)), [p if len(p) < 48 else p[:47] + "…" for p in places], fontsize=7)
        axis.set(xlabel=f"{metric}, % of the baseline (hollow: of the control)")
    left_out(picture, len(places), len(every), "recipes")


def draw_importance(picture: Picture, data: pd.DataFrame, metric: str) -> None:
    """A panel a part: drops, and below them the influence."""
    measures = list(data["measure"].unique())
    several = INFLUENCE in measures and len(measures) > 1
    for part, axes in columns(picture, list(data["part"].unique()), 2 if several else 1):
        for i, measure in enumerate(measures):
            line = data[(data["part"] == part) & (data["measure"] == measure)].sort_values("block")
            axis = axes[-1] if measure == INFLUENCE else axes[0]
            bars = errors(line, "effect", "low", "high")
            axis.errorbar(line["block"], line["effect"], yerr=bars, capsize=2, label=measure, **style(i))
            ends = [line[end].astype(float) for end in ("band_low", "band_high")]
            axis.fill_between(line["block"], *ends, alpha=0.15, color=COLOURS[i % len(COLOURS)])
        axes[0].set(ylabel=f"{text_of_label(metric).worse} of {metric}")
        axes[0].set_title(part, fontsize=9)
        if INFLUENCE in measures:
            axes[-1].set(ylabel="influence")
        axes[-1].set(xlabel="block")


def draw_recovery(picture: Picture, data: pd.DataFrame, metric: str) -> None:
    """The metric against training steps, and against the bytes of the whole model."""
    largest = float(data["model_bytes"].max())
    unit, scale = ("MB", 1e6) if not largest < 1e7 else ("kB", 1e3)
    curves = list(data.groupby(["what", "how"], sort=False))
    for against, axis in panels(picture, ["steps", "model_bytes"]):
        axis.axhline(100, color="0.5", linewidth=1, linestyle=":")
        axis.set_title("")
        for i, ((what, how), own) in enumerate(curves):
            line, seeds = own[~own["point"]].sort_values("steps"), own[own["point"]]
            by = 1.0 if against == "steps" else scale
            bars = errors(line, "retained", "retained_low", "retained_high")
            dashes = "--" if line["is_control"].any() else "-"
            axis.errorbar(
                line[against] / by,
                line["retained"],
                yerr=bars,
                capsize=2,
                linestyle=dashes,
                label=f"{what}, {how}",
                **style(i),
            )
            axis.plot(seeds[against] / by, seeds["retained"], linestyle="", markerfacecolor="none", **style(i))
        axis.set(
            xlabel="training steps" if against == "steps" else f"{unit}, whole model", ylabel=text_of_label(metric).axis
        )


def draw_together(picture: Picture, data: pd.DataFrame, metric: str) -> None:
    """Together against the sum; filled where the interval of the difference leaves out 0."""
    worse = text_of_label(metric).worse
    for _, axis in panels(picture, [""]):
        ends = [min(0.0, *data["sum"], *data["together"]), max(*data["sum"], *data["together"])]
        axis.plot(ends, ends, color="0.5", linestyle=":", linewidth=1, label=f"the sum of the single {worse}s")
        for i, (by, own) in enumerate(data.groupby("by", sort=False)):
            ended = own.assign(low=own["sum"] + own["low"], high=own["sum"] + own["high"])
            look = style(i)
            axis.errorbar(
                own["sum"],
                own["together"],
                yerr=errors(ended, "together", "low", "high"),
                fmt="none",
                color=look["color"],
            )
            for sure in (True, False):
                shown = own[own["misleads"].eq(True) == sure]
                face = look["color"] if sure else "none"
                axis.plot(shown["sum"], shown["together"], look["marker"], color=look["color"], markerfacecolor=face,
                          label=f"pieces: {by}" if sure or not own["misleads"].eq(True).any() else None)  # fmt: skip
        axis.set(xlabel=f"sum of the single {worse}s of {metric}", ylabel=f"{worse} together")
