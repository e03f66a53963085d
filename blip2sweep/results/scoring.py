"""Predictions -> statistics, for one task. References are tokenised once, one METEOR process serves all cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blip2sweep.metrics import (
    CAPTION_METRICS,
    METRICS,
    CaptionScorer,
    health_statistics,
    nll_statistics,
    vqa_statistics,
)
from blip2sweep.metrics.meteor import shared_meteor
from blip2sweep.results.predictions import (
    predictions_or_none,
    read_predictions,
    read_scores,
    second_runs,
    write_statistics,
)
from blip2sweep.rows import Id
from blip2sweep.tasks import TaskData
from blip2sweep.tasks.predictions import Predictions

Statistics = dict[str, NDArray[np.float64]]


class Scorer:
    """Scores any cell of one task."""

    def __init__(self, task: TaskData) -> None:
        self.task = task
        self._of_some: dict[tuple[Id, ...], CaptionScorer] = {}

    @cached_property
    def _captions(self) -> CaptionScorer:
        return CaptionScorer([s.references for s in self.task.samples])

    @property
    def names(self) -> set[str]:
        """The statistics that any cell of the task has."""
        return {
            "health",
            *({METRICS[m].statistic for m in CAPTION_METRICS} if self.task.kind == "caption" else {"vqa"}),
        }

    def warm(self) -> None:
        """Tokenise the references and start METEOR (some seconds) before there is anything to score."""
        if self.task.kind == "caption":
            assert self._captions
            shared_meteor().statistics([["a"]], ["a"])

    def prepare(self, captions: Sequence[str]) -> None:
        """Tokenise captions of any number of cells in one go, so that `statistics` need not."""
        if self.task.kind == "caption":
            self._captions.prepare(captions)

    def statistics(self, predictions: Predictions) -> Statistics:
        """Statistic arrays (n, k), in the order of the predictions."""
        return {
            **health_statistics(predictions.text),
            **_nll(predictions),
            **self._outputs(predictions),
        }

    def _outputs(self, predictions: Predictions) -> Statistics:
        if self.task.kind == "caption":
            return self._of(predictions).statistics(predictions.text)
        chosen = {s.id: s for s in self.task.samples}
        samples = [chosen[i] for i in predictions.id]
        return vqa_statistics(predictions.text, [s.references for s in samples], [s.answer_type for s in samples])

    def _of(self, predictions: Predictions) -> CaptionScorer:
        """The task's scorer, or one of its own where samples were skipped: document frequencies are the scored set's."""
        if len(predictions.id) == len(self.task.samples):
            return self._captions
        ids = tuple(predictions.id)
        if ids not in self._of_some:
            chosen = {s.id: s for s in self.task.samples}
            self._of_some = {ids: CaptionScorer([chosen[i].references for i in ids])}  # cells skip the same samples
        return self._of_some[ids]


def _nll(predictions: Predictions) -> Statistics:
    """Nothing where likelihoods were not measured; NaN, and so no value at all, where one was not finite."""
    if all(x is None for x in predictions.nll_sum):
        return {}
    return nll_statistics([float("nan") if x is None else x for x in predictions.nll_sum], predictions.nll_tokens)


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
