"""Which part to narrow next, from one recipe and within a limit, or why no step is advised and what to run instead."""

from __future__ import annotations

import pandas as pd

from blip2sweep.analysis.dropoff import MARGIN
from blip2sweep.analysis.grid import FREE
from blip2sweep.analysis.prices import advised
from blip2sweep.reporting.metric_text import MetricText
from blip2sweep.reporting.price_table import Sizes

FEWEST = 2  # steps that can be compared


def narrower(here: pd.DataFrame, base: float, metric: MetricText, sizes: Sizes, limit: float | None = None) -> str:
    """The advice as a clause; empty where the recipe has no step to a narrower width.

    here: the steps from one recipe, as `prices` gives them. base: the baseline's value of the metric. limit: the share
    of it that a recipe may lose, the page's margin where none was asked for.
    """
    limit = MARGIN if limit is None else limit
    steps = here[here["step"] == "narrower"]
    run, absent = steps[steps["lost"].notna()], steps[steps["lost"].isna()]
    if steps.empty:
        return ""
    if len(run) < FEWEST:
        count = "none" if run.empty else "only one"
        return f"no narrower step is advised yet, for {count} was run from this recipe{_to_run(absent)}"
    sign = 1 if metric.higher_is_better else -1
    within = run[sign * (base - run["value"].astype(float)) <= limit * abs(base)]
    step = advised(within)
    if step is None:
        loses = f"loses more than {100 * limit:g} % of {metric.label}"
        rises = f"raises {metric.label} by more than {100 * limit:g} %"
        over = loses if metric.higher_is_better else rises
        return f"no narrower step is advised, for each that was run {over}{_to_run(absent)}"
    return _step(step, metric, sizes)


def _to_run(absent: pd.DataFrame) -> str:
    told = ", ".join(f"{r['part']} {bits(r['now'])} → {bits(r['to'])} bits" for r in absent.to_dict("records"))
    return f"; to be run first: {told}" if told else ""


def _step(step: pd.Series, metric: MetricText, sizes: Sizes) -> str:
    why = (
        f"the {metric.worse} is not significant, and it saves most"
        if step["low"] <= 0
        else f"the least {metric.worse} for its size"
    )
    start = "full precision" if step["now"] == FREE else bits(step["now"])
    change = f"{step['part']} from {start} to {bits(step['to'])} bits"
    return f"of these, narrow {change} next: {why} ({sizes(step['saved_bytes'])})"


def bits(width: float) -> str:
    """As in a config: what is left alone has the bits `none`, whatever its numbers are stored in."""
    return "none" if width == FREE else f"{width:g}"
