"""The sentences at the head of a report: where the model breaks, which part matters, what is safe, what to run next.

Every sentence names the setting (method, strategy, …) that its numbers are of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.cells import headline, quantized
from blip2sweep.analysis.dropoff import MARGIN, dropoff, lowest_safe, too_few
from blip2sweep.analysis.recipes import entries
from blip2sweep.metrics import fewest_images
from blip2sweep.recipe.setting import part_of
from blip2sweep.reporting.few_images import baseline_beaten, few_changed
from blip2sweep.reporting.figure import Figure
from blip2sweep.reporting.metric_text import MetricText, metric_text
from blip2sweep.reporting.next_steps import next_steps, suggest_command
from blip2sweep.reporting.price_table import sizes_of
from blip2sweep.reporting.prices import ladder_sentence, price_tables
from blip2sweep.reporting.source import Source
from blip2sweep.reporting.steps_text import further_steps, step_sentences

BROKEN = 50.0  # % of the baseline
MOST_SETTINGS, MOST_STEPS = 4, 2


def sentences(source: Source, figures: list[Figure]) -> list[str]:
    """The sentences as plain text; one string holds one or a few of them."""
    metric = metric_text(source.metric)
    base = float(source.cells.loc[source.cells["part"] == "none", source.metric].iloc[0])
    if not base > 0:
        return [
            f"The baseline's {metric.label} is {base:g}: there is nothing to lose, and no {metric.worse} means anything (blip2sweep doctor)."
        ]
    further = step_sentences(source, figures)
    if further_steps(figures) and (quantized(source.cells)["part"] == "none").all():
        return [*further, *_beaten(source)]  # nothing was quantized alone, so nothing goes by bits
    whole = headline(source.cells)
    curves = dropoff(whole, source.metric, source.draws)
    shapley, costs = (next(f for f in figures if f.name == name).data for name in ("shapley", "prices"))
    ordered = settings(curves)
    matters = _matters(curves, shapley, ordered, metric, base) + _costs(source, costs, ordered, metric)
    breaks = _breaks(curves, ordered, metric) + _reached(whole)
    return [*further, breaks, matters, _safe(curves, ordered), *_beaten(source), _next(source, curves)]


def settings(curves: pd.DataFrame) -> list[str]:
    """The settings of a page. The one with most cells is first; sentences describe it in full."""
    known = curves.dropna(subset=["retained"]).drop_duplicates(["setting", "parts", "width"])
    return sorted(known["setting"].unique(), key=lambda s: (-(known["setting"] == s).sum(), s))


def _clauses(ordered: Iterable[str], clause: Callable[[str], str]) -> str:
    """One clause for each setting, and the number of settings left out."""
    names = list(ordered)
    more = f"; {len(names) - MOST_SETTINGS} more are in the figures" if len(names) > MOST_SETTINGS else ""
    return "; ".join(map(clause, names[:MOST_SETTINGS])) + more


# ---- where it breaks


def _breaks(curves: pd.DataFrame, ordered: list[str], metric: MetricText) -> str:
    if not ordered:
        there = f"no drop-off of {metric.label}" if metric.higher_is_better else f"nothing of {metric.label}"
        return f"No whole part was run at one width: there is {there} to see yet."
    lines = curves[~curves["point"]].dropna(subset=["retained"])
    own = {s: lines[lines["setting"] == s] for s in ordered}
    text = _first_broken(own[ordered[0]], ordered[0], metric) + "."
    text += _alone(own[ordered[0]], metric)
    others = _clauses(ordered[1:], lambda s: _first_broken(own[s], s, metric))
    return text + (f" {others}." if others else "")


def _broken(own: pd.DataFrame) -> pd.DataFrame:
    """Cells that lose more than half of the baseline, or whose likelihood is half as much again."""
    return own[own["drop"] > (1 - BROKEN / 100) * own["baseline"].abs()]


def _reached(whole: pd.DataFrame) -> str:
    """The layers that were compressed in each part, where these are not all."""
    layers: dict[str, set[str]] = {}
    for text in whole["recipe_json"] if len(whole) else ():
        for entry in entries(text):
            layers.setdefault(part_of(entry), set()).add(str(entry["target"]).split(":")[2])
    partly = ", ".join(f"of {p} the {' and '.join(sorted(w))}" for p, w in layers.items() if "all" not in w)
    return f" Compressed were only: {partly}." if partly else ""


def _first_broken(own: pd.DataFrame, setting: str, metric: MetricText) -> str:
    broken = _broken(own)
    if broken.empty:
        least = own.sort_values("drop").iloc[-1]["retained"]
        better = f"every cell keeps at least {least:.0f} % of {metric.label}"
        most = f"no cell raises {metric.label} above {max(least, 100):.0f} % of the baseline"
        return f"With {setting} nothing that was run breaks the model: {better if metric.higher_is_better else most}"
    first = broken.sort_values(["width", "drop"], ascending=False).iloc[0]
    who, left = first["parts"].replace("+", " + "), f"{first['retained']:.0f} %{_percent(first)}"
    what = (
        f"{who} keeps {left} of {metric.label}"
        if metric.higher_is_better
        else f"{who} raises {metric.label} to {left} of the baseline (higher is worse)"
    )
    return f"With {setting} it breaks at {first['width']:g} bits: {what}"


def _percent(row: pd.Series) -> str:
    low, high = row["retained_low"], row["retained_high"]
    return "" if pd.isna(low) else f" [{low:.0f}, {high:.0f}]"


def _alone(own: pd.DataFrame, metric: MetricText) -> str:
    broken = _broken(own)
    widest = broken[~broken["parts"].str.contains("+", regex=False)].groupby("parts")["width"].max()
    alone = ", ".join(f"{p} at {w:g} bits" for p, w in widest.sort_values(ascending=False).items())
    loses = f"loses half of {metric.label}" if metric.higher_is_better else f"raises {metric.label} by half"
    return f" Alone, a part {loses}: {alone}." if alone else ""


# ---- what the next bits cost


def _costs(source: Source, found: pd.DataFrame, ordered: list[str], metric: MetricText) -> str:
    """What to narrow next, and the ladder, of the first setting that has prices."""
    if found.empty:
        return ""
    having = list(dict.fromkeys(found["setting"]))
    setting = next((s for s in ordered if s in having), having[0])
    own = found[found["setting"] == setting]
    (table,) = price_tables(source, own)
    advice = f"{table.title.replace('what the next bits cost ', '')}: {table.advice}" if table.advice else ""
    sentences = [advice, ladder_sentence(own, setting, sizes_of(source.cells), metric)]
    return "".join(f" {s[0].upper()}{s[1:]}." for s in sentences if s)


def _beaten(source: Source) -> list[str]:
    note = baseline_beaten(source.cells, source.metric)
    return [f"{note[0].upper()}{note[1:]}."] if note else []


# ---- which part matters


def _matters(curves: pd.DataFrame, shapley: pd.DataFrame, ordered: list[str], metric: MetricText, base: float) -> str:
    values = shapley[shapley["kind"] == "part"].dropna(subset=["value", "total"]) if len(shapley) else shapley
    if len(values):
        having = set(values["setting"])
        setting = next((s for s in ordered if s in having), str(values["setting"].iloc[0]))
        return _shares(values[values["setting"] == setting], setting, metric, base)
    single = curves[~curves["parts"].str.contains("+", regex=False) & ~curves["point"]].dropna(subset=["drop"])
    if single.empty:
        return "No whole part was compressed alone, so nothing is known of which part matters."
    setting = next(s for s in ordered if s in set(single["setting"]))
    return _compared(single[single["setting"] == setting], setting, metric)


def _compared(single: pd.DataFrame, setting: str, metric: MetricText) -> str:
    """The drops of parts alone, at one width: of the widths at which most parts were run, the one that separates them
    best.
    """
    if single["drop"].max() <= 0:
        loses = f"loses any {metric.label}" if metric.higher_is_better else f"raises {metric.label}"
        return f"With {setting} no part alone {loses}, so none is known to matter more."
    counts = single.groupby("width")["parts"].nunique()
    if single["parts"].nunique() > 1 and counts.max() < 2:
        return f"With {setting} no two parts were run alone at one width, so nothing is known of which matters more."
    level = (single.groupby("width")["drop"].max() / single["baseline"].abs().iloc[0] - 0.5).abs()
    width = level[counts == counts.max()].idxmin()
    own = single[single["width"] == width].sort_values("drop", ascending=False).to_dict("records")
    amounts = [f"{r['parts']} {metric.amount(r['drop'], r['drop_low'], r['drop_high'])}" for r in own]
    if len(own) == 1:
        return f"With {setting} only {own[0]['parts']} was compressed alone; at {width:g} bits its {metric.worse} is {amounts[0].partition(' ')[2]}."
    costs = "costs most" if metric.higher_is_better else f"raises {metric.label} most"
    return f"With {setting}, of the parts alone at {width:g} bits, {own[0]['parts']} {costs}: {', '.join(amounts)}."


def _shares(values: pd.DataFrame, setting: str, metric: MetricText, base: float) -> str:
    """The Shapley values of the cell whose drop is nearest to half of the baseline, where the parts differ most
    plainly.
    """
    if values["total"].max() <= 0:
        lose = f"lose no {metric.label}" if metric.higher_is_better else f"do not raise {metric.label}"
        return f"With {setting} all parts together {lose} at the widths that were run, so none is known to matter more."
    nearest = (values["total"] / base - 0.5).abs().idxmin()
    own = values[values["key"] == values.at[nearest, "key"]].sort_values("value", ascending=False)
    shares = ", ".join(f"{r['term']} {_signed(r)}" for r in own.to_dict("records"))
    total = f"{own['total'].iloc[0]:.3f}"
    whole = (
        f"the drop of {total} {metric.label}"
        if metric.higher_is_better
        else f"the rise of {metric.label} by {total}{metric.unit}"
    )
    return f"With {setting} at {own['width'].iloc[0]:g} bits {whole} is shared out as {shares} (Shapley values, of this recipe)."


def _signed(row: Row) -> str:
    value, low, high = (number(row, c) for c in ("value", "low", "high"))
    bars = "" if low != low else f" [{low:.3f}, {high:.3f}]"
    return f"{value:.3f}{bars}"


# ---- what is safe, what is next


def _safe(curves: pd.DataFrame, ordered: list[str]) -> str:
    safe = lowest_safe(curves)
    known = safe.dropna(subset=["lowest_safe"]) if len(safe) else safe
    images, few = curves["images"].min(), few_changed(curves)
    if known.empty:
        why = f": {too_few(int(images), MARGIN)}" if images < fewest_images(MARGIN) else ""
        return f"No width that was run is shown to be safe within {MARGIN:.0%} (one-sided 97.5 %){why}.{few}"
    listed = _clauses(
        [s for s in ordered if s in set(known["setting"])], lambda s: _widths(known[known["setting"] == s], s)
    )
    return f"Safe within {MARGIN:.0%} of the baseline (tested in fixed sequence, one-sided 97.5 %): {listed}.{few}"


def _widths(safe: pd.DataFrame, setting: str) -> str:
    """The lowest safe widths of parts alone, and of the largest union of parts."""
    counted = safe.assign(_n=safe["parts"].str.count(r"\+")).sort_values(["_n", "parts"])
    own = counted[(counted["_n"] == 0) | (counted["parts"] == counted["parts"].iloc[-1])]
    lowest = zip(own["parts"], own["lowest_safe"], strict=True)
    return f"with {setting} " + ", ".join(f"{str(p).replace('+', ' + ')} down to {w:g} bits" for p, w in lowest)


def _next(source: Source, curves: pd.DataFrame) -> str:
    steps, suggested = next_steps(source, curves), suggest_command(source)
    texts = []
    for step in steps[:MOST_STEPS]:
        what = f"{_some(step.parts)} at {', '.join(map(str, step.widths))} bits with {step.setting} ({step.why})"
        texts.append((what if step.parts else step.why) + (f": {step.command}" if step.command else ""))
    more = f" and {len(steps) - MOST_STEPS} more" if len(steps) > MOST_STEPS else ""
    text = f"Run next: {'; '.join(texts)}{more}." if texts else "No fixed sequence of widths can be carried on."
    return text + (f" The cells that would teach most about all others: {suggested}." if suggested else "")


def _some(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - 4} more" if len(parts) > 4 else ""
    return ", ".join(p.replace("+", " + ") for p in parts[:4]) + more
