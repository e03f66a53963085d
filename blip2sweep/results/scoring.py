"""Computes the statistics of predictions, for one task. The task computes its own; likelihoods and the health of texts
are the same for every task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS, health_statistics, nll_statistics
from blip2sweep.results.predictions import (
    ScoreFile,
    predictions_or_none,
    read_predictions,
    read_variant,
    second_runs,
    write_statistics,
)
from blip2sweep.tasks import TaskData, planned_task
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.wire.pack import TaskJob

Statistics = dict[str, NDArray[np.float64]]


def installed_now(task: TaskData) -> Mapping[str, str]:
    """{statistic: version} of what is installed beside this package and changes a score of the chosen variants."""
    versions: Callable[[TaskData], Mapping[str, str]] | None = getattr(task.rules, "scorer_versions", None)
    return versions(task) if versions else {}


def versions_of(task: TaskJob) -> Mapping[str, str]:
    """`installed_now` of a job's task; empty where it cannot be read here, and of code from outside, which is run to
    score alone."""
    if task.get("planned", {}).get("outside"):
        return {}
    try:
        return installed_now(planned_task(task))
    except UserError:
        return {}


class VariantScorer:
    """Scores the cells of one task by one variant of its settings."""

    def __init__(self, task: TaskData) -> None:
        self.task = task
        self._own = task.rules.scorer(task)

    @cached_property
    def names(self) -> set[str]:
        """The names of the statistics that every cell of the task has."""
        health = {"health"} if "generate" in self.task.rules.REQUESTS else set()
        return health | {METRICS[m].statistic for m in self.task.rules.scores(self.task)}

    @cached_property
    def installed(self) -> Mapping[str, str]:
        """`installed_now` of the task."""
        return installed_now(self.task)

    def warm(self) -> None:
        """Start what takes seconds to start, before there is a cell to score."""
        self._own.warm()

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        """Do the work that several cells can share, such as tokenizing, before `statistics` is called for each."""
        self._own.prepare(predictions)

    def statistics(self, predictions: Predictions) -> Statistics:
        """{name: (n, k) float64}, in the order of the predictions."""
        return {**_health(predictions), **_nll(predictions), **self._own.statistics(predictions)}

    def holds(self, file: ScoreFile | None) -> bool:
        """Whether a score file has everything that would be computed now."""
        if file is None or not file.current or not self.names.issubset(file.statistics):
            return False
        return all(file.installed.get(s) == self.installed.get(s) for s in file.statistics)


class Scorer:
    """Scores the cells of one task by every chosen variant of its settings. variants: {suffix: scorer}."""

    def __init__(self, task: TaskData) -> None:
        self.variants = {v.suffix: VariantScorer(task.scored_by_one(v)) for v in task.variants}

    def warm(self) -> None:
        """Start what takes seconds to start, before there is a cell to score."""
        for own in self.variants.values():
            own.warm()

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        """Do the work that several cells can share, such as tokenizing, before `statistics` is called for each."""
        for own in self.variants.values():
            own.prepare(predictions)

    def statistics(self, predictions: Predictions) -> Statistics:
        """{name: (n, k) float64} of all variants, in the order of the predictions."""
        return {s: a for own in self.variants.values() for s, a in own.statistics(predictions).items()}


def _health(predictions: Predictions) -> Statistics:
    """The statistics of output health, of texts alone: a choice among options cannot be empty."""
    return {} if predictions.text is None else health_statistics(predictions.text)


def _nll(predictions: Predictions) -> Statistics:
    """Empty when no likelihoods were measured. A likelihood that was not finite is NaN, which makes the metric NaN."""
    sums, tokens = predictions.nll_sum, predictions.nll_tokens
    if sums is None or tokens is None or all(x is None for x in sums):
        return {}
    return nll_statistics([float("nan") if x is None else x for x in sums], tokens)


def score_result(output_dir: Path, name: str, scorer: Scorer) -> bool:
    """Write the statistics of a cell's predictions, of every variant that has none of the current scorers. True when
    some were written.

    Second runs come first: whoever sees a scored cell may then rely on its noise floor. Raises UserError for damaged
    predictions.
    """
    for second in second_runs(output_dir, name).values():
        _score(output_dir, second, scorer, predictions_or_none)  # a damaged second run costs the noise floor alone
    return _score(output_dir, name, scorer, read_predictions)


def _score(output_dir: Path, name: str, scorer: Scorer, read: Callable[[Path, str], Predictions | None]) -> bool:
    """Score one run, read by `read`. True when statistics were written. Raises the first error after all variants were
    tried."""
    written, failed, predictions = False, list[UserError](), None
    for variant, own in scorer.variants.items():
        try:
            if own.holds(read_variant(output_dir, name, variant)):
                continue
            if predictions := predictions or read(output_dir, name):
                write_statistics(output_dir, name, own.statistics(predictions), variant, own.installed)
                written = True
        except UserError as error:  # a variant that cannot be scored here costs itself alone
            failed.append(error)
    if failed:
        raise failed[0]
    return written
