"""The three questions of a visitor, answered in plain words: what can I compress, how far, what does it cost me.

Answers are of one setting, the one in which most parts together are safe at the lowest width; the sentences below them
have the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.dropoff import MARGIN, lowest_safe, too_few
from blip2sweep.metrics import fewest_images
from blip2sweep.reporting.answer import COST, HOW_FAR, WHAT, Answer, keeps, listed, reached, without_widths
from blip2sweep.reporting.figure import Figure
from blip2sweep.reporting.metric_text import MetricText, metric_text
from blip2sweep.reporting.price_table import Sizes, sizes_of
from blip2sweep.reporting.source import Source
from blip2sweep.reporting.worst_blocks import block_name, worst_first

BROKEN, FINE, MOST_WIDTHS = (
    0.5,
    0.1,
    2,
)  # shares of the baseline that are lost; widths below the lowest safe one that are told
FULL = 16  # bits, which save nothing
TIME = "latency_ms_median"


@dataclass(frozen=True)
class _Told:
    """What answers are made from.

    only: which layers were compressed, where these are not all. curves: of one setting, with `lowest`, the lowest safe width (NaN: none is). of: the number of settings that were run.
    """

    cells: pd.DataFrame
    curves: pd.DataFrame
    only: str
    metric: MetricText
    sizes: Sizes
    of: int

    @property
    def whole(self) -> pd.DataFrame:
        """The curve of most parts together that are safe at some width, else of most parts; from wide to narrow."""
        joined = self.curves.assign(_none=self.curves["lowest"].isna(), _n=-self.curves["parts"].str.count(r"\+"))
        own = joined.sort_values(["_none", "_n", "lowest", "parts"])
        return own[own["parts"] == own["parts"].iloc[0]].sort_values("width", ascending=False)

    @property
    def parts(self) -> str:
        """Its parts."""
        return listed(self.whole["parts"].iloc[0])

    @property
    def lowest(self) -> float:
        """Its lowest safe width; NaN where none is."""
        return float(self.whole["lowest"].iloc[0])


def answers(source: Source, curves: pd.DataFrame, figures: list[Figure]) -> list[Answer]:
    """The three answers; other ones where no whole part was run at one width.

    curves: `dropoff` of the headline.
    """
    known = curves[~curves["point"]].dropna(subset=["retained"]) if len(curves) else curves
    if known.empty:
        return without_widths(source)
    safe = lowest_safe(curves).drop_duplicates(["setting", "parts"]).set_index(["setting", "parts"])["lowest_safe"]
    places = zip(known["setting"], known["parts"], strict=True)
    known = known.assign(lowest=[float(safe[p]) if pd.notna(safe[p]) else math.nan for p in places])
    own = known[known["setting"] == _furthest(known)]
    only = reached(source.cells[source.cells["key"].isin(own["key"])])
    told = _Told(
        source.cells, own, only, metric_text(source.metric), sizes_of(source.cells), known["setting"].nunique()
    )
    blocks = next(f.data for f in figures if f.name == "blocks")
    return [_what(told, blocks), _how_far(told), _cost(told)]


def _furthest(known: pd.DataFrame) -> str:
    """The setting of most parts together, then of the lowest safe width, then of the most that is kept at the lowest."""
    order = ["_n", "lowest", "width", "drop", "setting"]
    return str(known.assign(_n=-known["parts"].str.count(r"\+")).sort_values(order)["setting"].iloc[0])


# ---- what


def _what(told: _Told, blocks: pd.DataFrame) -> Answer:
    single = told.curves[~told.curves["parts"].str.contains("+", regex=False)]
    if single["parts"].nunique() < 2:
        more = "No two parts were run alone, so which bears most is not known."
        return Answer(WHAT, f"Run here: {told.parts}", more + told.only + _block(blocks, told.metric), "dropoff")
    lowest = single.drop_duplicates("parts").sort_values(["lowest", "parts"])
    clear, none = lowest.dropna(subset=["lowest"]), list(lowest.loc[lowest["lowest"].isna(), "parts"])
    short = f"{listed('+'.join(clear['parts']))}, each alone" if len(clear) else "No part is shown to bear it yet"
    safe = ", ".join(f"{r['parts']} down to {r['lowest']:g} bits" for r in clear.to_dict("records"))
    text = f"With less than {MARGIN:.0%} lost: {safe}. " if safe else ""
    text += f"Shown at no width that was run: {listed('+'.join(none))}. " if safe and none else ""
    return Answer(
        WHAT, short, text + _extremes(single, told.metric) + told.only + _block(blocks, told.metric), "dropoff"
    )


def _extremes(single: pd.DataFrame, metric: MetricText) -> str:
    """Of the parts alone, at the lowest width that most of them have and that one of them bears: the one that loses
    least, and most."""
    by = single.assign(lost=single["drop"] / single["baseline"].abs()).groupby("width")
    most = by["parts"].nunique() == by["parts"].nunique().max()
    borne = by["lost"].min()[most] <= FINE
    width = borne[borne].index.min() if borne.any() else borne.index.min()
    own = single[single["width"] == width].sort_values("drop")
    first, last = own.iloc[0].to_dict(), own.iloc[-1].to_dict()
    worst = f"; {last['parts']} is worst and {keeps(last, metric)}" if len(own) > 1 else ""
    return f"At {first['width']:g} bits {first['parts']} is best and {keeps(first, metric)}{worst}."


def _block(data: pd.DataFrame, metric: MetricText) -> str:
    """The block to be careful with, where its band lies above 0."""
    worst = worst_first(data)
    row = worst.iloc[0].to_dict() if len(worst) else {}
    if not row or not number(row, "band_low") > 0:
        return ""
    lost = metric.amount(*(number(row, c) for c in ("effect", "band_low", "band_high")))
    verb = "loses" if metric.higher_is_better else "raises by"
    return f" Spare {block_name(row)}: alone at {row['width']:g} bits it {verb} {lost}."


# ---- how far


def _how_far(told: _Told) -> Answer:
    images = told.curves["images"].min()
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
    return Answer(HOW_FAR, short, f"{text}{_further_down(told)} {_with(told)}", "dropoff")


def _larger(told: _Told) -> str:
    """The most parts together, where these are more than those that are safe together."""
    most = max(told.curves["parts"], key=lambda p: str(p).count("+"))
    return (
        ""
        if most.count("+") <= told.whole["parts"].iloc[0].count("+")
        else f" {listed(most)} together: shown at no width."
    )


def _further_down(told: _Told) -> str:
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


def _with(told: _Told) -> str:
    setting = str(told.curves["setting"].iloc[0])
    return f"With {setting}{f', the furthest of {told.of} methods on these images' if told.of > 1 else ''}."


# ---- what it costs


def _cost(told: _Told) -> Answer:
    """The size and what is kept at the lowest safe width, or at the widest where none is safe, and one step below."""
    narrow = told.whole[told.whole["width"] < FULL]
    down = told.whole if narrow.empty else narrow if math.isnan(told.lowest) else narrow[narrow["width"] <= told.lowest]
    first, *more = down.head(2).to_dict("records")
    text = f"{told.parts} {_price(told, first)}." + (f" One step further, {_price(told, more[0])}." if more else "")
    now, was = _bytes(told, first)
    smaller = f"{was / now:.1f} times smaller, " if now > 0 and was > 0 else ""
    short = f"{smaller}{keeps(first, told.metric, bars=False)}"
    return Answer(COST, short[:1].upper() + short[1:], text, "frontier")


def _price(told: _Told, row: Row) -> str:
    now, was = _bytes(told, row)
    size = (
        f"{told.sizes(now)} instead of {told.sizes(was)}, {was / now:.1f} times smaller; "
        if now > 0 and was > 0
        else ""
    )
    return f"at {row['width']:g} bits: {size}{keeps(row, told.metric)}{_time(told, row)}"


def _bytes(told: _Told, row: Row) -> tuple[float, float]:
    """Of the cell and of the baseline; NaN where they are not known."""
    return _both(told, row, "model_bytes")


def _both(told: _Told, row: Row, column: str) -> tuple[float, float]:
    cells = told.cells.reindex(columns=["key", "part", column])
    now, was = cells.loc[cells["key"] == row["key"], column].iloc[0], cells.loc[cells["part"] == "none", column].iloc[0]
    return float(now), float(was)


def _time(told: _Told, row: Row) -> str:
    """What an image takes, where both were timed."""
    now, was = _both(told, row, TIME)
    return "" if math.isnan(now) or math.isnan(was) else f"; {now:.3g} ms an image instead of {was:.3g}"
