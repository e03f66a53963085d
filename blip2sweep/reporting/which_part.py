"""The sentence on which part matters most."""

from __future__ import annotations

import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.common_images import least_first, order_note
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.stopped import level_mark
from blip2sweep.reporting.metric_text import MetricText


def which_part(
    curves: pd.DataFrame,
    shapley: pd.DataFrame,
    ordered: list[str],
    metric: MetricText,
    base: float,
    draws: Draws | None,
) -> str:
    """Which part matters most: by Shapley values where there are, else by the parts alone at one width.

    curves: `dropoff` of the headline; shapley: of the figure; ordered: the settings; base: the baseline's value. draws:
    rank cells that stopped.
    """
    values = shapley[shapley["kind"] == "part"].dropna(subset=["value", "total"]) if len(shapley) else shapley
    if len(values):
        having = set(values["setting"])
        setting = next((s for s in ordered if s in having), str(values["setting"].iloc[0]))
        return _shares(
            values[values["setting"] == setting], setting, metric, base, draws is not None and bool(draws.seen)
        )
    single = curves[~curves["parts"].str.contains("+", regex=False) & ~curves["point"]].dropna(subset=["drop"])
    if single.empty:
        return "No whole part was compressed alone, so nothing is known of which part matters."
    setting = next(s for s in ordered if s in set(single["setting"]))
    return _compared(single[single["setting"] == setting], setting, metric, draws)


def _compared(single: pd.DataFrame, setting: str, metric: MetricText, draws: Draws | None) -> str:
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
    ranked = least_first(single[single["width"] == width], draws)
    own = ranked.iloc[::-1].to_dict("records")
    amounts = [f"{r['parts']} {metric.amount(r['drop'], r['drop_low'], r['drop_high'])}{level_mark(r)}" for r in own]
    if len(own) == 1:
        return f"With {setting} only {own[0]['parts']} was compressed alone; at {width:g} bits its {metric.worse} is {amounts[0].partition(' ')[2]}."
    costs = "costs most" if metric.higher_is_better else f"raises {metric.label} most"
    return f"With {setting}, of the parts alone at {width:g} bits, {own[0]['parts']} {costs}: {', '.join(amounts)}{order_note(ranked, draws)}."


def _shares(values: pd.DataFrame, setting: str, metric: MetricText, base: float, some_stopped: bool) -> str:
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
    of = ", each cell counting with its own images" if some_stopped else ""
    return f"With {setting} at {own['width'].iloc[0]:g} bits {whole} is shared out as {shares} (Shapley values, of this recipe{of})."


def _signed(row: Row) -> str:
    value, low, high = (number(row, c) for c in ("value", "low", "high"))
    bars = "" if low != low else f" [{low:.3f}, {high:.3f}]"
    return f"{value:.3f}{bars}"
