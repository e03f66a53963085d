"""A search by a sweeper of another package: the direction of its metric, and its trials."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from blip2sweep.analysis.stopped import stopped
from blip2sweep.commands.run import Outcome
from blip2sweep.console.printing import say
from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS


class Trial(NamedTuple):
    """One trial of a search. value: the main metric of its cell; NaN where it has none."""

    overrides: tuple[str, ...]
    key: str | None
    metric: str
    value: float


def direction(metric: str) -> str:
    """`maximize` or `minimize`, as Optuna says it. Raises UserError for an unknown metric."""
    if metric not in METRICS:
        raise UserError(f"task.main_metric={metric}: no such metric; right: one of {', '.join(METRICS)}")
    return "maximize" if METRICS[metric].higher_is_better else "minimize"


def check_direction(key: str, requested: object, metric: str) -> None:
    """Raise UserError for a search that would call the worst cell the best.

    key: the sweeper's setting with the direction. requested: a direction, or a list of them.
    """
    words = [str(getattr(d, "name", d)) for d in (requested if isinstance(requested, list | tuple) else [requested])]
    right = direction(metric)
    if words != [right]:
        better = "higher" if right == "maximize" else "lower"
        fix = (
            f"hydra.sweeper.direction={right}, or hydra/sweeper=optuna_best"
            if key == "direction"
            else (f"hydra.sweeper.{key}={str(key.endswith(right)).lower()}")
        )
        raise UserError(
            f"hydra.sweeper.{key}: {','.join(words)}: {metric} is the one number a cell returns, and better where it "
            f"is {better}; right: {fix}"
        )


def trials(outcomes: Sequence[Outcome]) -> list[Trial]:
    """Every job of these launches, in order."""
    return [trial for outcome in outcomes for trial in _trials(outcome)]


def _trials(outcome: Outcome) -> Iterator[Trial]:
    plan = outcome.plan
    for i, (job, key, metric) in enumerate(zip(plan.jobs, plan.keys, plan.metrics, strict=True)):
        named = metric or str(job.config["task"]["main_metric"])
        yield Trial(job.overrides, key, named, outcome.by_job.get(i, math.nan))


def best(tried: Sequence[Trial]) -> Trial | None:
    """The trial with the best value of the first trial's metric; the first of equal ones. None where no trial has a
    value."""
    known = [t for t in tried if not math.isnan(t.value) and t.metric == tried[0].metric]
    sign = 1 if known and direction(known[0].metric) == "maximize" else -1
    return max(known, key=lambda t: sign * t.value, default=None)


def print_trials(tried: Sequence[Trial], output_dir: Path) -> None:
    """Print a row for each trial, then the best one."""
    from blip2sweep.reporting.terminal import print_table

    table = pd.read_parquet(output_dir / "table.parquet", filters=[("key", "in", {t.key for t in tried if t.key})])
    print_table(table, f"{len(tried)} trials of {len(table)} cells")
    found = best(tried)
    if found is None:
        say("no trial has a value")
        return
    unlike = "; some stopped, so these values are of unlike images" if stopped(table).any() else ""
    say(
        f"best of {len(tried)} trials: {found.metric} {found.value:.4g}, cell {found.key}: {' '.join(found.overrides)}{unlike}"
    )
