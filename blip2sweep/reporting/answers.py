"""The three questions of a visitor, answered in plain words: what can I compress, how far, what does it cost me.

Answers are of one setting, the one in which most parts together are safe at the lowest width; the sentences below them
have the others.
"""

from __future__ import annotations

import math

import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.common_images import least_first, order_note
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.dropoff import MARGIN, too_few
from blip2sweep.metrics import fewest_images
from blip2sweep.reporting.answer import COST, HOW_FAR, WHAT, Answer, keeps, listed, without_widths
from blip2sweep.reporting.figure import Figure
from blip2sweep.reporting.metric_text import MetricText
from blip2sweep.reporting.smaller import as_loaded, ratio_of, smaller
from blip2sweep.reporting.source import Source
from blip2sweep.reporting.told import Told, cell_of, costed, told_of
from blip2sweep.reporting.worst_blocks import block_name, worst_first

BROKEN, FINE, MOST_WIDTHS = (
    0.5,
    0.1,
    2,
)  # shares of the baseline that are lost; widths below the lowest safe one that are told
TIME = "latency_ms_median"


def answers(source: Source, curves: pd.DataFrame, figures: list[Figure]) -> list[Answer]:
    """The three answers; other ones where no whole part was run at one width.

    curves: `dropoff` of the headline.
    """
    told = told_of(source, curves)
    if told is None:
        return without_widths(source)
    blocks = next(f.data for f in figures if f.name == "blocks")
    return [_what(told, blocks, source.draws), _how_far(told), _cost(told)]


# ---- what


def _what(told: Told, blocks: pd.DataFrame, draws: Draws | None) -> Answer:
    single = told.curves[~told.curves["parts"].str.contains("+", regex=False)]
    if single["parts"].nunique() < 2:
        more = "No two parts were run alone, so which bears most is not known."
        return Answer(WHAT, f"Run here: {told.parts}", more + told.only + _block(blocks, told.metric, draws), "dropoff")
    lowest = single.drop_duplicates("parts").sort_values(["lowest", "parts"])
    clear, none = lowest.dropna(subset=["lowest"]), list(lowest.loc[lowest["lowest"].isna(), "parts"])
    short = (
        f"{listed('+'.join(clear['parts']))}, each alone" if len(clear) else f"Tried alone: {listed('+'.join(none))}"
    )
    safe = ", ".join(f"{r['parts']} down to {r['lowest']:g} bits" for r in clear.to_dict("records"))
    text = f"With less than {MARGIN:.0%} lost: {safe}. " if safe else ""
    text += f"Shown at no width that was run: {listed('+'.join(none))}. " if safe and none else ""
    text += _extremes(single, told.metric, draws) + told.only + _block(blocks, told.metric, draws)
    return Answer(WHAT, short, text, "dropoff")


def _extremes(single: pd.DataFrame, metric: MetricText, draws: Draws | None) -> str:
    """Of the parts alone, at the lowest width that most of them have and that one of them bears: the one that loses
    least, and most."""
    by = single.assign(lost=single["drop"] / single["baseline"].abs()).groupby("width")
    most = by["parts"].nunique() == by["parts"].nunique().max()
    borne = by["lost"].min()[most] <= FINE
    width = borne[borne].index.min() if borne.any() else borne.index.min()
    own = least_first(single[single["width"] == width], draws)
    first, last = own.iloc[0].to_dict(), own.iloc[-1].to_dict()
    worst = f"; {last['parts']} is worst and {keeps(last, metric)}" if len(own) > 1 else ""
    ends = order_note(own.iloc[[0, -1]], draws) if len(own) > 1 else ""
    return f"At {first['width']:g} bits {first['parts']} is best and {keeps(first, metric)}{worst}{ends}."


def _block(data: pd.DataFrame, metric: MetricText, draws: Draws | None) -> str:
    """The block to be careful with, where its band lies above 0."""
    worst = worst_first(data, draws)
    row = worst.iloc[0].to_dict() if len(worst) else {}
    if not row or not number(row, "band_low") > 0:
        return ""
    lost = metric.amount(*(number(row, c) for c in ("effect", "band_low", "band_high")))
    verb = "loses" if metric.higher_is_better else "raises by"
    return f" Spare {block_name(row)}: alone at {row['width']:g} bits it {verb} {lost}."


# ---- how far


def _how_far(told: Told) -> Answer:
    images = told.curves["images"].max()  # fewer where cells stopped
    on = f" on {int(images)} images" if images == images else ""
    if math.isnan(told.lowest):
        few = f": {too_few(int(images), MARGIN)}" if images < fewest_images(MARGIN) else ""
        short, text = (
            "No width is shown to be safe",
            f"{told.parts}: none is shown to lose less than {MARGIN:.0%}{few}.",
        )
    else:
        short = f"Down to {told.lowest:g} bits"
        text = f"{told.parts}{' together' if '+' in told.whole['parts'].iloc[0] else ''}, with less than {MARGIN:.0%} lost{on}.{_larger(told)}"
    return Answer(HOW_FAR, short, f"{text}{_furthercosted(told)}{_why(told)} {_with(told)}", "dropoff")


def _why(told: Told) -> str:
    """Why these parts are spoken of, where others were run too."""
    if told.curves["parts"].nunique() < 2:
        return ""
    if "+" in told.whole["parts"].iloc[0]:
        safe = " and are shown to be safe" if told.lowest == told.lowest else ""
        return f" These are the most parts that were run together{safe}."
    single = told.curves[~told.curves["parts"].str.contains("+", regex=False)]
    alike = single["parts"].nunique() < 2 or single.loc[single["lowest"].eq(told.lowest), "parts"].nunique() > 1
    if math.isnan(told.lowest) or alike:
        return " Of the parts alone it saves most."
    return " Of the parts alone it goes furthest."


def _larger(told: Told) -> str:
    """The most parts together, where these are more than those that are safe together."""
    most = max(told.curves["parts"], key=lambda p: str(p).count("+"))
    return (
        ""
        if most.count("+") <= told.whole["parts"].iloc[0].count("+")
        else f" {listed(most)} together: shown at no width."
    )


def _furthercosted(told: Told) -> str:
    """What is kept at narrower widths, down to the first that breaks."""
    texts = list[str]()
    for row in told.whole.to_dict("records"):
        broken = number(row, "drop") > BROKEN * abs(number(row, "baseline"))
        if not row["width"] >= told.lowest:
            texts.append(f"at {row['width']:g} bits it {keeps(row, told.metric)}{' and is broken' if broken else ''}")
        if broken:
            break
    text = "; ".join(texts[-MOST_WIDTHS:])
    return f" {text[:1].upper()}{text[1:]}." if text else ""


def _with(told: Told) -> str:
    setting = str(told.curves["setting"].iloc[0])
    return (
        f"With {setting}{f', which of the {told.of} methods that were run compresses furthest' if told.of > 1 else ''}."
    )


# ---- what it costs


def _cost(told: Told) -> Answer:
    """The size and what is kept at the lowest safe width, or at the widest where none is safe, and one step below."""
    first, *more = costed(told).head(2).to_dict("records")
    text = f"{told.parts} {_price(told, first)}." + (f" One step further, {_price(told, more[0])}." if more else "")
    cell = cell_of(told, first)
    size = (as_loaded(told.cells, cell) if ratio_of(cell) < 1 else "") or smaller(ratio_of(cell))
    # Where nothing is shown to be safe, a bare `keeps 100 %` would read as if it were.
    short = f"{f'{size}, ' if size else ''}{keeps(first, told.metric, bars=math.isnan(told.lowest))}"
    return Answer(COST, short[:1].upper() + short[1:], text, "frontier")


def _price(told: Told, row: Row) -> str:
    cell = cell_of(told, row)
    now, than, loaded = number(cell, "model_bytes"), smaller(ratio_of(cell)), as_loaded(told.cells, cell)
    size = f"{told.sizes(now)}, {than}{f' ({loaded})' if loaded else ''}; " if now > 0 and than else ""
    return f"at {row['width']:g} bits: {size}{keeps(row, told.metric)}{_time(told, row)}"


def _both(told: Told, row: Row, column: str) -> tuple[float, float]:
    cells = told.cells.reindex(columns=["key", "part", column])
    now, was = cells.loc[cells["key"] == row["key"], column].iloc[0], cells.loc[cells["part"] == "none", column].iloc[0]
    return float(now), float(was)


def _time(told: Told, row: Row) -> str:
    """What an image takes, where both were timed."""
    now, was = _both(told, row, TIME)
    return "" if math.isnan(now) or math.isnan(was) else f"; {now:.3g} ms an image instead of {was:.3g}"
