"""The lines under a table: what a reader of its numbers must know."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import pandas as pd

from blip2sweep.analysis.main_metric import main_metric, metrics_of
from blip2sweep.analysis.models import models_of
from blip2sweep.analysis.steps import untrained
from blip2sweep.analysis.stopped import level_text
from blip2sweep.console.printing import one_line
from blip2sweep.metrics import METRICS
from blip2sweep.recipe.trained import OFF_GRID
from blip2sweep.reporting.embedded import embedded_note
from blip2sweep.reporting.few_images import unseen_notes
from blip2sweep.reporting.stopped_text import stopped_notes
from blip2sweep.reporting.table_baselines import without_baseline
from blip2sweep.results.schema import known

STEADY = 0.02  # what the times of one baseline may differ by, and rows still compare by their own
NOT_SCORED = (
    "nothing is scored here; right: `blip2sweep rescore`, or of a split without annotations `blip2sweep answers`"
)


def notes(table: pd.DataFrame) -> list[str]:
    """What a reader of the numbers must know. What is of one model of several begins with its name."""
    table = known(table)
    ends = [f"drop_{m}_low" for m in metrics_of(table)]
    bounded = any(table[e].notna().any() for e in ends if e in table)
    why = "without a baseline there is no drop" if len(without_baseline(table)) else "there are no outputs"
    how = f"{level_text(table)}, paired, images as a sample" if bounded else f"none, for {why}"
    scored = f"drop: {_drop_formula(table)}, positive is worse; interval: {how}"
    names, lines = models_of(table), [scored if metrics_of(table) else NOT_SCORED]
    own = (
        {m: _notes_of(table[table["model"].map(str) == m]) for m in names} if len(names) > 1 else {"": _notes_of(table)}
    )
    lines += _named(own)
    return [*lines, *filter(None, [embedded_note(names)])]


def _named(lines: Mapping[str, list[str]]) -> list[str]:
    """The lines of each model behind its name; a line of several models stands once. One model needs no name."""
    if len(lines) < 2:
        return [line for own in lines.values() for line in own]
    whose: dict[str, list[str]] = {}
    for model, own in lines.items():
        for line in own:
            whose.setdefault(line, []).append(model)
    return [f"{', '.join(map(one_line, models))}: {line}" for line, models in whose.items()]


def _unsized(table: pd.DataFrame) -> list[str]:
    """That rows of earlier versions have no size (see recipe/old_sizes.py)."""
    done = table[table["status"].eq("done")] if "status" in table else table
    count = len(done) if "model_bytes" not in done else int(done["model_bytes"].isna().sum())
    if not count or "stored" not in done:
        return []
    rows, says = ("1 row has", "it says") if count == 1 else (f"{count} rows have", "they say")
    return [
        f"{rows} no size: an earlier version counted 16 bits for every number that is not quantized, and what {says} is not "
        f"enough to count as now; right: the same cells again (`rerun`)"
    ]


def _notes_of(table: pd.DataFrame) -> list[str]:
    """The notes on the cells of one model."""
    lines = [*_further_notes(table), *_unsized(table)]
    if "noise_flip_rate" in table and table["noise_flip_rate"].notna().any():
        rate, metric = table["noise_flip_rate"].max(), main_metric(table)
        change = table.get(f"noise_{metric}", pd.Series([math.nan])).max()
        by = "" if math.isnan(change) else f", {metric} by {change:.4f}"
        lines.append(f"noise floor: the baseline at another batch size changes {rate:.1%} of outputs{by}")
    if "noise_seed_flip_rate" in table and table["noise_seed_flip_rate"].notna().any():
        rates = [f"{table[f'noise_{w}_flip_rate'].max():.1%}" for w in ("seed", "arithmetic")]
        lines.append(
            f"noise: what another calibration seed / other arithmetic of the calibration alone changes, which no interval "
            f"holds; at most {rates[0]} / {rates[1]} of outputs"
        )
    return [*lines, *stopped_notes(table), *_latency_notes(table), *unseen_notes(table, metrics_of(table))]


def _latency_notes(table: pd.DataFrame) -> list[str]:
    """What the times are, and where they were measured; nothing where there are none."""
    timed = table[table["latency_ms_median"].notna()] if "latency_ms_median" in table else table.iloc[:0]
    places = timed[["latency_device", "latency_threads"]].drop_duplicates() if len(timed) else timed
    where = [f"{d}, {t:.0f} thread{'s' * (t != 1)}" for d, t in places.itertuples(index=False)]
    if not where:
        return []
    lacking = "; other cells simulate their kernels, or were not timed" if len(timed) < len(table) else ""
    return [
        f"ms: median of one image alone on {' and '.join(where)}; baseline ms: the baseline's in turns with that row, and not its "
        f"own row's; × baseline: ms / baseline ms{_apart(timed)}{lacking}"
    ]


def _apart(timed: pd.DataFrame) -> str:
    """How to compare rows, where the machine was not the same for all: another device, or another load."""
    if "latency_ms_baseline" not in timed:
        return ""
    least, most = timed["latency_ms_baseline"].min(), timed["latency_ms_baseline"].max()
    if not most > least * (1 + STEADY):
        return ""
    return f"; baseline ms is from {least:.4g} to {most:.4g}, so compare rows by ×, not by ms"


def _further_notes(table: pd.DataFrame) -> Iterator[str]:
    """What drops of rows with further steps are against, and what a size says of them."""
    if any(table[c].notna().any() for c in table if str(c).startswith("drop_control_")):
        yield (
            "drop is against the baseline also where a row is recovered; drop to control is against the uncompressed model with the "
            "same recovery, a row of this table too, and what compression costs where both are trained alike"
        )
    kept, plain = untrained(table)
    if kept.any():
        control = ", and a control is the baseline" if plain.any() else ""
        yield (
            f"kept 0: training did not help on held-out images in {kept.sum()} of {table['recover'].notna().sum()} recovered cells, "
            f"so they are as before it{control}; recover.holdout=0 takes the last step"
        )
    if "recover" in table and table["recover"].map(str).str.endswith(OFF_GRID).any():
        yield f"{OFF_GRID}: trained weights are on no grid of a quantizer, so they count as full precision: 16 in columns of widths"


def _drop_formula(table: pd.DataFrame) -> str:
    metric = main_metric(table)
    return (
        "baseline − cell" if metric is None or METRICS[metric].higher_is_better else f"{metric} of the cell − baseline"
    )
