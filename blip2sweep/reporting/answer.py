"""One answer of a report's first screen, its words, and the answers where nothing goes by bits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.common_images import least_first, order_note
from blip2sweep.analysis.recipes import entries, part_of
from blip2sweep.analysis.stopped import level_mark
from blip2sweep.reporting.metric_text import MetricText, metric_text
from blip2sweep.reporting.price_table import sizes_of
from blip2sweep.reporting.ship import Shipped, shipped
from blip2sweep.reporting.smaller import smaller
from blip2sweep.reporting.source import Source

WHAT, HOW_FAR, COST = "What can I compress?", "How far?", "What does it cost me?"
FINE = 2  # %: narrower intervals have a decimal


@dataclass(frozen=True)
class Answer:
    """short: the answer in a few words. text: more of it. figure: the section of the page that shows it."""

    question: str
    short: str
    text: str
    figure: str


def keeps(row: Row, metric: MetricText, bars: bool = True) -> str:
    """`keeps 86 % [85, 87] of CIDEr`, of a row of `dropoff`; of a likelihood what it is of the original's."""
    low, high = number(row, "retained_low"), number(row, "retained_high")
    digits = 1 if bars and high - low < FINE else 0
    ends = "" if math.isnan(low) or not bars else f" [{low:.{digits}f}, {high:.{digits}f}]{level_mark(row)}"
    share = f"{round(number(row, 'retained'), digits) + 0.0:.{digits}f}\u00a0%{ends}"
    return (
        f"keeps {share} of {metric.label}"
        if metric.higher_is_better
        else f"has {metric.label} at {share} of the original"
    )


def reached(whole: pd.DataFrame) -> str:
    """The layers that were compressed in each part, where these are not all."""
    layers: dict[str, set[str]] = {}
    for text in whole["recipe_json"] if len(whole) else ():
        for entry in entries(text):
            layers.setdefault(part_of(entry), set()).add(str(entry["target"]).split(":")[2])
    partly = ", ".join(f"of {p} the {' and '.join(sorted(w))}" for p, w in layers.items() if "all" not in w)
    return f" Compressed were only: {partly}." if partly else ""


def listed(parts: str) -> str:
    """`vision, connector and language`."""
    names = parts.split("+")
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def without_widths(source: Source) -> list[Answer]:
    """The answers where no whole part was run at one width: what ships, or what loses least."""
    touched = source.cells[source.cells["part"] != "none"].dropna(subset=[f"drop_{source.metric}"])
    if touched.empty:
        return []
    drop = f"drop_{source.metric}"
    ranked = least_first(touched, source.draws, drop)
    least, note = ranked.iloc[0], order_note(ranked, source.draws, drop)
    more = f"Of {len(touched)} recipes it loses least in {metric_text(source.metric).label}{note}."
    what = Answer(WHAT, str(least["recipe"]), more, "cells")
    found = shipped(source) if source.draws is not None else []
    return [what, *(_ships(source, found[0]) if found else _lost_by(source, least))]


def _ships(source: Source, best: Shipped) -> list[Answer]:
    metric = metric_text(source.metric)
    on = "On images that did not choose it no loss is seen."
    lost, size = metric.amount(best.drop, best.low, best.high).replace("-", "−"), smaller(best.ratio) or best.what
    return [
        Answer(HOW_FAR, size[:1].upper() + size[1:], f"{best.what}. {on}", "frontier"),
        Answer(COST, f"A {metric.worse} not told from 0", f"{lost} on those images.", "frontier"),
    ]


def _lost_by(source: Source, row: pd.Series) -> list[Answer]:
    metric = metric_text(source.metric)
    drop, low, high = (float(row.get(f"drop_{source.metric}{end}", math.nan)) for end in ("", "_low", "_high"))
    size = float(row.get("model_bytes", math.nan))
    held = f"{sizes_of(source.cells)(size)}, the whole model" if size == size else "its size is not known"
    lost = metric.amount(drop, low, high).replace("-", "−") + level_mark(row.to_dict())
    known = "its interval covers 0, on the images that chose it" if low <= 0 <= high else "of all recipes the least"
    return [
        Answer(HOW_FAR, held, f"With {row['recipe']}.", "cells"),
        Answer(COST, f"A {metric.worse} of {lost}", f"{known[:1].upper()}{known[1:]}.", "cells"),
    ]
