"""Predictions -> statistics, for one task. What they are is the task's; likelihoods and the health of texts are any task's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blip2sweep.metrics import METRICS, health_statistics, nll_statistics
from blip2sweep.results.predictions import (
    predictions_or_none,
    read_predictions,
    read_scores,
    second_runs,
    write_statistics,
)
from blip2sweep.tasks import TaskData
from blip2sweep.tasks.predictions import Predictions

Statistics = dict[str, NDArray[np.float64]]


class Scorer:
    """Scores any cell of one task."""

    def __init__(self, task: TaskData) -> None:
        self.task = task
        self._own = task.rules.scorer(task)

    @property
    def names(self) -> set[str]:
        """The statistics that any cell of the task has."""
        health = {"health"} if "generate" in self.task.rules.REQUESTS else set()
        return health | {METRICS[m].statistic for m in self.task.rules.scores(self.task)}

    def warm(self) -> None:
        """Make ready what takes seconds before there is anything to score."""
        self._own.warm()

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        """Do for any number of cells in one go what `statistics` would do for each."""
        self._own.prepare(predictions)

    def statistics(self, predictions: Predictions) -> Statistics:
        """Statistic arrays (n, k), in the order of the predictions."""
        return {**_health(predictions), **_nll(predictions), **self._own.statistics(predictions)}


def _health(predictions: Predictions) -> Statistics:
    """Of texts; a choice cannot be empty."""
    return {} if predictions.text is None else health_statistics(predictions.text)


def _nll(predictions: Predictions) -> Statistics:
    """Nothing where likelihoods were not measured; NaN, and so no value at all, where one was not finite."""
    sums, tokens = predictions.nll_sum, predictions.nll_tokens
    if sums is None or tokens is None or all(x is None for x in sums):
        return {}
    return nll_statistics([float("nan") if x is None else x for x in sums], tokens)


def score_result(output_dir: Path, name: str, scorer: Scorer) -> bool:
    """Write the statistics of a cell's predictions unless those of the current scorers are there. True if written.

    Second runs come first: whoever sees the cell scored may count on its noise floor.
    """
    for second in second_runs(output_dir, name).values():
        _score(output_dir, second, scorer, predictions_or_none)  # damaged, it costs the noise floor and nothing else
    return _score(output_dir, name, scorer, read_predictions)


def _score(output_dir: Path, name: str, scorer: Scorer, read: Callable[[Path, str], Predictions | None]) -> bool:
    statistics, current = read_scores(output_dir, name)
    if current and scorer.names.issubset(statistics):
        return False
    predictions = read(output_dir, name)
    if predictions is None:
        return False
    write_statistics(output_dir, name, scorer.statistics(predictions))
    return True
