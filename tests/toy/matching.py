"""A kind from outside that asks for a score of each picture against every text: recall at 1 of the picture's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from blip2sweep.metrics.statistics import FloatArray, Metric
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.sample import TaskData
from blip2sweep.tasks.task import RequestType
from tests.toy.task import check_prompt, prompt, targets

__all__ = ["ASKS", "PRESET", "REQUESTS", "check_prompt", "columns", "metrics", "prompt", "scorer", "scores", "targets"]

REQUESTS: tuple[RequestType, ...] = ("match",)
PRESET = "vqa"
ASKS = False


def scores(data: TaskData) -> tuple[str, ...]:
    return ("toy_recall",)


def columns(data: TaskData) -> dict[str, str]:
    return {}


def metrics() -> Sequence[Metric]:
    def finish(sums: FloatArray) -> FloatArray:
        return sums[..., 0] / sums[..., 1]

    return [Metric("toy_recall", "toy_match", finish, True, "1", (0, 1), label="recall@1", per_sample=True, order=3)]


class Scorer:
    def __init__(self, data: TaskData) -> None:
        self._place = {s.id: i for i, s in enumerate(data.samples)}

    def warm(self) -> None:
        pass

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        pass

    def statistics(self, predictions: Predictions) -> dict[str, FloatArray]:
        assert predictions.scores is not None
        best = [int(np.argmax(row)) for row in predictions.scores]
        found = [float(self._place[i] == b) for i, b in zip(predictions.id, best, strict=True)]
        return {"toy_match": np.column_stack([found, np.ones(len(found))])}


def scorer(data: TaskData) -> Scorer:
    return Scorer(data)
