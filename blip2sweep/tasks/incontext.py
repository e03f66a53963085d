"""Questions that a chat model answers from what the vision-language model says of the picture.

The text of a prediction is the chat model's reply as it is. How an answer is read from it is a rule of scoring
(`task.parse`), so that another rule needs no request. The answer is then scored as any answer to a question is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from blip2sweep.chat import parse
from blip2sweep.metrics.statistics import FloatArray, Metric
from blip2sweep.tasks import questions
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.questions import check_prompt, prompt, targets
from blip2sweep.tasks.sample import TaskData
from blip2sweep.tasks.task import RequestType

__all__ = [
    "ASKS",
    "CHAT",
    "PRESET",
    "REQUESTS",
    "check_prompt",
    "columns",
    "metrics",
    "prompt",
    "scorer",
    "scores",
    "targets",
]

REQUESTS: tuple[RequestType, ...] = ("generate", "likelihood")
PRESET = "vqa"
ASKS = True
CHAT = True
FALLBACK = "fallback_rate"


def scores(data: TaskData) -> tuple[str, ...]:
    return (*questions.scores(data), FALLBACK)


def columns(data: TaskData) -> dict[str, str]:
    return questions.columns(data)


def metrics() -> Sequence[Metric]:
    def finish(sums: FloatArray) -> FloatArray:
        return sums[..., 0] / sums[..., 1]

    label = "own answer used"
    return [Metric(FALLBACK, FALLBACK, finish, False, "1", (0, 1), label=label, per_sample=True)]


def read(predictions: Predictions, variant: str, rule: str) -> tuple[Predictions, list[bool]]:
    """(the predictions with the answers that a rule reads from the replies, for which of them it took the vision-language
    model's own). variant: of the pipeline. rule: one of `parse.RULES`."""
    assert predictions.text is not None
    own = predictions.answer or [""] * len(predictions.text)
    found = [parse.answer(*one, variant, rule) for one in zip(predictions.text, own, strict=True)]
    refused = [parse.answer(reply, parse.OWN, variant, rule) == parse.OWN for reply in predictions.text]
    return replace(predictions, text=found), refused


class Scorer:
    """Scores the answers that are read from the replies."""

    def __init__(self, data: TaskData) -> None:
        self.data, self._questions = data, questions.scorer(data)

    def warm(self) -> None:
        self._questions.warm()

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        pass

    def statistics(self, predictions: Predictions) -> Mapping[str, FloatArray]:
        answers, refused = read(predictions, self.data.variant, "published")
        taken = np.column_stack([np.array(refused, float), np.ones(len(refused))])
        return {**self._questions.statistics(answers), FALLBACK: taken}


def scorer(data: TaskData) -> Scorer:
    return Scorer(data)
