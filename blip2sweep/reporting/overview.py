"""The sentences that matter: where it breaks, which part matters, what is safe, what to run next.

Every sentence names the setting (method, strategy, …) it speaks of; no number of one stands beside that of another unnamed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from blip2sweep.analysis.cells import headline, one_seed
from blip2sweep.analysis.dropoff import MARGIN, dropoff, lowest_safe, too_few
from blip2sweep.analysis.predict import cross_validated, predictable
from blip2sweep.analysis.recipes import entries, part_of
from blip2sweep.errors import UserError
from blip2sweep.metrics import fewest_images
from blip2sweep.reporting.figures import Figure
from blip2sweep.reporting.next_steps import next_steps, suggest_command
from blip2sweep.reporting.prices import ladder_told, priced, sizes_of
from blip2sweep.reporting.seen import beaten, few_changed
from blip2sweep.reporting.source import Source
from blip2sweep.reporting.words import Words, words_of

BROKEN = 50.0  # % of the baseline
MOST_SETTINGS, MOST_STEPS = 4, 2


def sentences(source: Source, figures: list[Figure]) -> list[str]:
    """Plain text, one string a sentence (or few)."""
    words = words_of(source.metric)
    base = float(source.cells.loc[source.cells["part"] == "none", source.metric].iloc[0])
    if not base > 0:
        return [
            f"The baseline's {words.name} is {base:g}: there is nothing to lose, and no {words.worse} means anything (blip2sweep doctor)."
        ]
    whole = headline(source.cells)
    curves = dropoff(whole, source.metric, source.draws)
    shapley, costs = (next(f for f in figures if f.name == name).data for name in ("shapley", "prices"))
    ordered = settings(curves)
    matters = _matters(curves, shapley, ordered, words, base) + _costs(source, costs, ordered, words)
    told = [_breaks(curves, ordered, words) + _reached(whole), matters, _safe(curves, ordered), _next(source, curves)]
    return [*told[:3], *_beaten(source), *told[3:]]


def settings(curves: pd.DataFrame) -> list[str]:
    """The settings of a page, the one of which most was run first: that one is told in full."""
    known = curves.dropna(subset=["retained"]).drop_duplicates(["setting", "parts", "width"])
    return sorted(known["setting"].unique(), key=lambda s: (-(known["setting"] == s).sum(), s))


def _told(ordered: Iterable[str], tell: Callable[[str], str]) -> str:
    """A clause for each setting, and how many were left out."""
    names = list(ordered)
    more = f"; {len(names) - MOST_SETTINGS} more are in the figures" if len(names) > MOST_SETTINGS else ""
    return "; ".join(map(tell, names[:MOST_SETTINGS])) + more


# ---- where it breaks


def _breaks(curves: pd.DataFrame, ordered: list[str], words: Words) -> str:
    if not ordered:
        seen = f"no drop-off of {words.name}" if words.higher else f"nothing of {words.name}"
        return f"No whole part was run at one width: there is {seen} to see yet."
    lines = curves[~curves["point"]].dropna(subset=["retained"])
    own = {s: lines[lines["setting"] == s] for s in ordered}
    text = _first_broken(own[ordered[0]], ordered[0], words) + "."
    text += _alone(own[ordered[0]], words)
    others = _told(ordered[1:], lambda s: _first_broken(own[s], s, words))
    return text + (f" {others}." if others else "")


def _broken(own: pd.DataFrame) -> pd.DataFrame:
    """Cells that lose more than half of the baseline, or whose likelihood is half as much again."""
    return own[own["drop"] > (1 - BROKEN / 100) * own["baseline"].abs()]


def _reached(whole: pd.DataFrame) -> str:
    """Which layers a part's name stands for, where it is not all of them."""
    layers: dict[str, set[str]] = {}
    for text in whole["recipe_json"] if len(whole) else ():
        for entry in entries(text):
            layers.setdefault(part_of(entry), set()).add(str(entry["target"]).split(":")[2])
    partly = ", ".join(f"of {p} the {' and '.join(sorted(w))}" for p, w in layers.items() if "all" not in w)
    return f" Compressed were only: {partly}." if partly else ""


def _first_broken(own: pd.DataFrame, setting: str, words: Words) -> str:
    broken = _broken(own)
    if broken.empty:
        least = own.sort_values("drop").iloc[-1]["retained"]
        kept = f"every cell keeps at least {least:.0f} % of {words.name}"
        most = f"no cell raises {words.name} above {max(least, 100):.0f} % of the baseline"
        return f"With {setting} nothing that was run breaks the model: {kept if words.higher else most}"
    first = broken.sort_values(["width", "drop"], ascending=False).iloc[0]
    who, left = first["parts"].replace("+", " + "), f"{first['retained']:.0f} %{_percent(first)}"
    what = (
        f"{who} keeps {left} of {words.name}"
        if words.higher
        else f"{who} raises {words.name} to {left} of the baseline (higher is worse)"
    )
    return f"With {setting} it breaks at {first['width']:g} bits: {what}"


def _percent(row: pd.Series) -> str:
    low, high = row["retained_low"], row["retained_high"]
    return "" if pd.isna(low) else f" [{low:.0f}, {high:.0f}]"


def _alone(own: pd.DataFrame, words: Words) -> str:
    broken = _broken(own)
    widest = broken[~broken["parts"].str.contains("+", regex=False)].groupby("parts")["width"].max()
    alone = ", ".join(f"{p} at {w:g} bits" for p, w in widest.sort_values(ascending=False).items())
    loses = f"loses half of {words.name}" if words.higher else f"raises {words.name} by half"
    return f" Alone, a part {loses}: {alone}." if alone else ""


# ---- what the next bits cost


def _costs(source: Source, found: pd.DataFrame, ordered: list[str], words: Words) -> str:
    """Of the setting that is told in full: what to narrow next, and the ladder."""
    if found.empty:
        return ""
    having = list(dict.fromkeys(found["setting"]))
    setting = next((s for s in ordered if s in having), having[0])
    own = found[found["setting"] == setting]
    (table,) = priced(source, own)
    advice = f"{table.title.replace('what the next bits cost ', '')}: {table.advice}" if table.advice else ""
    said = [advice, ladder_told(own, setting, sizes_of(source.cells), words)]
    return "".join(f" {s[0].upper()}{s[1:]}." for s in said if s)


def _beaten(source: Source) -> list[str]:
    told = beaten(source.cells, source.metric)
    return [f"{told[0].upper()}{told[1:]}."] if told else []


# ---- which part matters


def _matters(curves: pd.DataFrame, shapley: pd.DataFrame, ordered: list[str], words: Words, base: float) -> str:
    values = shapley[shapley["kind"] == "part"].dropna(subset=["value", "total"]) if len(shapley) else shapley
    if len(values):
        having = set(values["setting"])
        setting = next((s for s in ordered if s in having), str(values["setting"].iloc[0]))
        return _shares(values[values["setting"] == setting], setting, words, base)
    single = curves[~curves["parts"].str.contains("+", regex=False) & ~curves["point"]].dropna(subset=["drop"])
    if single.empty:
        return "No whole part was compressed alone, so nothing is known of which part matters."
    setting = next(s for s in ordered if s in set(single["setting"]))
    return _compared(single[single["setting"] == setting], setting, words)


def _compared(single: pd.DataFrame, setting: str, words: Words) -> str:
    """Parts alone, at one width: of those at which most parts were run the one that tells them apart best."""
    if single["drop"].max() <= 0:
        loses = f"loses any {words.name}" if words.higher else f"raises {words.name}"
        return f"With {setting} no part alone {loses}, so none is known to matter more."
    counts = single.groupby("width")["parts"].nunique()
    if single["parts"].nunique() > 1 and counts.max() < 2:
        return f"With {setting} no two parts were run alone at one width, so nothing is known of which matters more."
    level = (single.groupby("width")["drop"].max() / single["baseline"].abs().iloc[0] - 0.5).abs()
    width = level[counts == counts.max()].idxmin()
    own = single[single["width"] == width].sort_values("drop", ascending=False).to_dict("records")
    told = [f"{r['parts']} {words.amount(r['drop'], r['drop_low'], r['drop_high'])}" for r in own]
    if len(own) == 1:
        return f"With {setting} only {own[0]['parts']} was compressed alone; at {width:g} bits its {words.worse} is {told[0].partition(' ')[2]}."
    costs = "costs most" if words.higher else f"raises {words.name} most"
    return f"With {setting}, of the parts alone at {width:g} bits, {own[0]['parts']} {costs}: {', '.join(told)}."


def _shares(values: pd.DataFrame, setting: str, words: Words, base: float) -> str:
    """The cell whose drop is nearest to half of the baseline: there the parts differ most plainly."""
    if values["total"].max() <= 0:
        lose = f"lose no {words.name}" if words.higher else f"do not raise {words.name}"
        return f"With {setting} all parts together {lose} at the widths that were run, so none is known to matter more."
    nearest = (values["total"] / base - 0.5).abs().idxmin()
    own = values[values["key"] == values.at[nearest, "key"]].sort_values("value", ascending=False)
    shares = ", ".join(f"{r['term']} {_signed(r)}" for r in own.to_dict("records"))
    total = f"{own['total'].iloc[0]:.3f}"
    whole = f"the drop of {total} {words.name}" if words.higher else f"the rise of {words.name} by {total}{words.unit}"
    return f"With {setting} at {own['width'].iloc[0]:g} bits {whole} is shared out as {shares} (Shapley values, of this recipe)."


def _signed(row: dict[Any, Any]) -> str:
    low, high = row["low"], row["high"]
    bars = "" if low != low else f" [{low:.3f}, {high:.3f}]"
    return f"{row['value']:.3f}{bars}"


# ---- what is safe, what is next


def _safe(curves: pd.DataFrame, ordered: list[str]) -> str:
    safe = lowest_safe(curves)
    known = safe.dropna(subset=["lowest_safe"]) if len(safe) else safe
    images, few = curves["images"].min(), few_changed(curves)
    if known.empty:
        why = f": {too_few(int(images), MARGIN)}" if images < fewest_images(MARGIN) else ""
        return f"No width that was run is shown to be safe within {MARGIN:.0%} (one-sided 97.5 %){why}.{few}"
    listed = _told(
        [s for s in ordered if s in set(known["setting"])], lambda s: _widths(known[known["setting"] == s], s)
    )
    return f"Safe within {MARGIN:.0%} of the baseline (tested in fixed sequence, one-sided 97.5 %): {listed}.{few}"


def _widths(safe: pd.DataFrame, setting: str) -> str:
    """Parts alone, and the largest union."""
    counted = safe.assign(_n=safe["parts"].str.count(r"\+")).sort_values(["_n", "parts"])
    own = counted[(counted["_n"] == 0) | (counted["parts"] == counted["parts"].iloc[-1])]
    lowest = zip(own["parts"], own["lowest_safe"], strict=True)
    return f"with {setting} " + ", ".join(f"{str(p).replace('+', ' + ')} down to {w:g} bits" for p, w in lowest)


def _next(source: Source, curves: pd.DataFrame) -> str:
    steps, suggested = next_steps(source, curves), suggest_command(source)
    told = []
    for step in steps[:MOST_STEPS]:
        what = f"{_some(step.parts)} at {', '.join(map(str, step.widths))} bits with {step.setting} ({step.why})"
        told.append((what if step.parts else step.why) + (f": {step.command}" if step.command else ""))
    more = f" and {len(steps) - MOST_STEPS} more" if len(steps) > MOST_STEPS else ""
    text = f"Run next: {'; '.join(told)}{more}." if told else "No fixed sequence of widths can be carried on."
    return text + (f" The cells that would teach most about all others: {suggested}." if suggested else "")


def _some(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - 4} more" if len(parts) > 4 else ""
    return ", ".join(p.replace("+", " + ") for p in parts[:4]) + more


def model_quality(source: Source) -> str | None:
    """Cross-validated error of the predictor against the two baselines it has to beat; None where nothing can be fitted."""
    from blip2sweep.analysis.knapsack import FEWEST_CELLS, problems
    from blip2sweep.analysis.layer_groups import noise

    if source.anatomy is None:
        return None
    try:
        cells = one_seed(predictable(source.cells, source.metric))  # a seed's twin would give the fit the answer
        found = max(problems(cells, source.anatomy), key=lambda p: len(p.cells))
    except UserError:
        return None
    if len(found.cells) < 2 * FEWEST_CELLS:
        return None
    # The baseline, and at most 200 others at random: the first ones of a sweep are often all of one kind.
    rows = np.sort(np.random.default_rng(0).permutation(np.arange(1, len(found.cells)))[:200])
    own, widths = found.cells.iloc[[0, *rows]], found.groups.widths[[0, *rows]]
    base = float(own.loc[own["part"] == "none", source.metric].iloc[0])
    errors = cross_validated(widths, noise(widths), own[source.metric].to_numpy(float), base, found.groups.families)
    told = ", ".join(f"{name} {error:.3f}" for name, error in errors.items())
    return f"Predicting cells that were not run with {found.setting}, mean absolute error in {words_of(source.metric).name} (5-fold): {told}."
