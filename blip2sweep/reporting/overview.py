"""The head of a report: three answers in plain words, then where the model breaks, which part and which blocks matter, what
is safe, what to run next.

Every sentence names the setting (method, strategy, …) that its numbers are of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pandas as pd

from blip2sweep.analysis.cells import headline, quantized
from blip2sweep.analysis.common_images import least_first
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.dropoff import MARGIN, dropoff, lowest_safe, too_few
from blip2sweep.analysis.prices import HERE, prices
from blip2sweep.analysis.stopped import level_mark
from blip2sweep.metrics import fewest_images
from blip2sweep.reporting.answer import Answer, reached, without_widths
from blip2sweep.reporting.answers import answers
from blip2sweep.reporting.few_images import baseline_beaten, few_changed
from blip2sweep.reporting.figure import Figure
from blip2sweep.reporting.metric_text import MetricText, metric_text
from blip2sweep.reporting.next_steps import next_steps, suggest_command
from blip2sweep.reporting.next_text import commands_in, next_sentence
from blip2sweep.reporting.price_table import sizes_of
from blip2sweep.reporting.prices import advice_from, ladder_sentence, recipe_at
from blip2sweep.reporting.source import Source
from blip2sweep.reporting.steps_text import further_steps, step_sentences
from blip2sweep.reporting.stopped_text import stopped_notes
from blip2sweep.reporting.told import named_cell
from blip2sweep.reporting.which_part import which_part
from blip2sweep.reporting.worst_blocks import worst_blocks

BROKEN = 50.0  # % of the baseline
MOST_SETTINGS = 4


@dataclass(frozen=True)
class Overview:
    """The head of a report as plain text. sentences: one string holds one or a few of them; commands: those in them."""

    answers: list[Answer]
    sentences: list[str]
    commands: list[str]


def overview(source: Source, figures: list[Figure]) -> Overview:
    """What a report says first."""
    metric = metric_text(source.metric)
    base = float(source.cells.loc[source.cells["part"] == "none", source.metric].iloc[0])
    if not base > 0:
        nothing = f"The baseline's {metric.label} is {base:g}: there is nothing to lose, and no {metric.worse} means anything (blip2sweep doctor)."
        return Overview([], [nothing], [])
    further = step_sentences(source, figures)
    if further_steps(figures) and (quantized(source.cells)["part"] == "none").all():
        return Overview(without_widths(source), [*further, *_remarks(source)], [])  # nothing goes by bits
    curves = dropoff(headline(source.cells), source.metric, source.draws)
    steps, suggested = next_steps(source, curves), suggest_command(source)
    told = [
        *further,
        *_by_bits(source, figures, curves, metric, base),
        *_remarks(source),
        next_sentence(steps, suggested),
    ]
    return Overview(answers(source, curves, figures), told, commands_in(steps, suggested))


def _by_bits(
    source: Source, figures: list[Figure], curves: pd.DataFrame, metric: MetricText, base: float
) -> Iterator[str]:
    """The sentences on what is quantized and nothing else."""
    frames, ordered = {f.name: f.data for f in figures}, settings(curves)
    yield _breaks(curves, ordered, metric, source.draws) + reached(headline(source.cells))
    costs = _costs(source, frames["prices"], ordered, named_cell(source, curves))
    yield which_part(curves, frames["shapley"], ordered, metric, base, source.draws) + costs
    if blocks := worst_blocks(frames["blocks"], metric, source.draws):
        yield blocks
    yield _safe(curves, ordered)


def settings(curves: pd.DataFrame) -> list[str]:
    """The settings of a page. The one with most cells is first; sentences describe it in full."""
    known = curves.dropna(subset=["retained"]).drop_duplicates(["setting", "parts", "width"])
    return sorted(known["setting"].unique(), key=lambda s: (-(known["setting"] == s).sum(), s))


def _clauses(ordered: Iterable[str], clause: Callable[[str], str]) -> str:
    """One clause for each setting, and the number of settings left out."""
    names = list(ordered)
    more = f"; {len(names) - MOST_SETTINGS} more are in the figures" if len(names) > MOST_SETTINGS else ""
    first, *others = [clause(name) for name in names[:MOST_SETTINGS]] or [""]
    return "; ".join([first, *(f"{c[:1].lower()}{c[1:]}" if c.startswith("With ") else c for c in others)]) + more


# ---- where it breaks


def _breaks(curves: pd.DataFrame, ordered: list[str], metric: MetricText, draws: Draws | None) -> str:
    if not ordered:
        there = f"no drop-off of {metric.label}" if metric.higher_is_better else f"nothing of {metric.label}"
        return f"No whole part was run at one width: there is {there} to see yet."
    lines = curves[~curves["point"]].dropna(subset=["retained"])
    own = {s: lines[lines["setting"] == s] for s in ordered}
    text = f"{_first_broken(own[ordered[0]], ordered[0], metric, draws)}."
    text += _alone(own[ordered[0]], metric)
    alike: dict[str, list[str]] = {}
    for s in ordered[1:]:
        alike.setdefault(_first_broken(own[s], "{}", metric, draws), []).append(s)
    others = _clauses(alike, lambda told: told.replace("{}", _named(alike[told]), 1))
    return text + (f" {others}." if others else "")


def _broken(own: pd.DataFrame) -> pd.DataFrame:
    """Cells that lose more than half of the baseline, or whose likelihood is half as much again."""
    return own[own["drop"] > (1 - BROKEN / 100) * own["baseline"].abs()]


def _first_broken(own: pd.DataFrame, setting: str, metric: MetricText, draws: Draws | None) -> str:
    broken = _broken(own)
    if broken.empty:
        least = own.sort_values("drop").iloc[-1]["retained"]
        better = f"every cell keeps at least {least:.0f} % of {metric.label}"
        most = f"no cell raises {metric.label} above {max(least, 100):.0f} % of the baseline"
        return f"With {setting} nothing that was run breaks the model: {better if metric.higher_is_better else most}"
    first = least_first(broken[broken["width"] == broken["width"].max()].iloc[::-1], draws).iloc[-1]
    who, left = first["parts"].replace("+", " + "), f"{first['retained']:.0f} %{_ends(first)}"
    what = (
        f"{who} keeps {left} of {metric.label}"
        if metric.higher_is_better
        else f"{who} raises {metric.label} to {left} of the baseline (higher is worse)"
    )
    return f"With {setting} it breaks at {first['width']:g} bits: {what}"


def _ends(row: pd.Series) -> str:
    low, high = row["retained_low"], row["retained_high"]
    return "" if pd.isna(low) else f" [{low:.0f}, {high:.0f}]{level_mark(row.to_dict())}"


def _alone(own: pd.DataFrame, metric: MetricText) -> str:
    broken = _broken(own)
    widest = broken[~broken["parts"].str.contains("+", regex=False)].groupby("parts")["width"].max()
    alone = ", ".join(f"{p} at {w:g} bits" for p, w in widest.sort_values(ascending=False).items())
    loses = f"loses half of {metric.label}" if metric.higher_is_better else f"raises {metric.label} by half"
    return f" Alone, a part {loses}: {alone}." if alone else ""


def _named(names: list[str]) -> str:
    """`a, b and c`; the first of many, and how many there are more."""
    more = [f"{len(names) - MOST_SETTINGS} more"] if len(names) > MOST_SETTINGS else []
    first, last = [*names[:MOST_SETTINGS], *more][:-1], [*names[:MOST_SETTINGS], *more][-1]
    return f"{', '.join(first)} and {last}" if first else last


# ---- what the next bits cost


def _costs(source: Source, found: pd.DataFrame, ordered: list[str], named: str | None) -> str:
    """What to narrow next from the recipe that the answers name, and the ladder of the first setting that has prices."""
    if found.empty:
        return ""
    having = list(dict.fromkeys(found["setting"]))
    setting = next((s for s in ordered if s in having), having[0])
    own = found[found["setting"] == setting]
    ladder = ladder_sentence(own, setting, sizes_of(source.cells), metric_text(source.metric))
    return "".join(f" {s[0].upper()}{s[1:]}." for s in (_advice(source, named), ladder) if s)


def _advice(source: Source, named: str | None) -> str:
    if named is None:
        return ""
    steps = prices(source.cells, source.metric, lambda keys: source.draws, named)
    here = steps[(steps["kind"] == HERE) & (steps["beside"] == named)]
    advice = advice_from(source, source.cells, here, named)
    return f"at {recipe_at(source.cells, named)}: {advice}" if advice else ""


def _remarks(source: Source) -> list[str]:
    """What a reader of any sentence must know: a baseline that cells beat, and cells that stopped early."""
    note = baseline_beaten(source.cells, source.metric)
    told = [*([note] if note else []), *stopped_notes(source.cells)]
    return [f"{n[0].upper()}{n[1:]}." for n in told]


# ---- what is safe


def _safe(curves: pd.DataFrame, ordered: list[str]) -> str:
    safe = lowest_safe(curves)
    known = safe.dropna(subset=["lowest_safe"]) if len(safe) else safe
    images, few = curves["images"].max(), few_changed(curves)  # fewer where cells stopped
    if known.empty:
        why = f": {too_few(int(images), MARGIN)}" if images < fewest_images(MARGIN) else ""
        return f"No width that was run is shown to be safe within {MARGIN:.0%} (one-sided 97.5 %){why}.{few}"
    widths = _clauses(
        [s for s in ordered if s in set(known["setting"])], lambda s: _widths(known[known["setting"] == s], s)
    )
    return f"Safe within {MARGIN:.0%} of the baseline (tested in fixed sequence, one-sided 97.5 %): {widths}.{few}"


def _widths(safe: pd.DataFrame, setting: str) -> str:
    """The lowest safe widths of parts alone, and of the largest union of parts."""
    counted = safe.assign(_n=safe["parts"].str.count(r"\+")).sort_values(["_n", "parts"])
    own = counted[(counted["_n"] == 0) | (counted["parts"] == counted["parts"].iloc[-1])]
    lowest = zip(own["parts"], own["lowest_safe"], strict=True)
    return f"with {setting} " + ", ".join(f"{str(p).replace('+', ' + ')} down to {w:g} bits" for p, w in lowest)
