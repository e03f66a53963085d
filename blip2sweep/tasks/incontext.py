"""Questions that a chat model answers from what the vision-language model says of the picture.

The text of a prediction is the chat model's reply as it is. How an answer is read from it is a rule of scoring
(`task.parse`), so that another rule needs no request. The answer is then scored as any answer to a question is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from blip2sweep.chat import parse
from blip2sweep.metrics.in_context import FALLBACK, PARSE, fallback_statistics
from blip2sweep.metrics.statistics import FloatArray, Metric
from blip2sweep.metrics.variants import variants
from blip2sweep.tasks import questions
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.questions import check_prompt, columns, prompt, targets
from blip2sweep.tasks.sample import TaskData
from blip2sweep.tasks.task import RequestType

__all__ = [
    "ASKS",
    "PRESET",
    "REQUESTS",
    "check_installed",
    "check_prompt",
    "columns",
    "metrics",
    "prompt",
    "scorer",
    "scorer_versions",
    "scores",
    "targets",
]

REQUESTS: tuple[RequestType, ...] = ("generate", "likelihood")
PRESET = "vqa"
ASKS = True
CHAT = True
SCORING = {**questions.SCORING, **PARSE}
IDENTITY = ("variant",)  # of the pipeline, which a cell's job tells; it says how a reply is read


def scores(data: TaskData) -> tuple[str, ...]:
    names = (*questions.scores(_as_questions(data)), FALLBACK.name)
    return tuple(name + suffix for _, suffix in _rules(data) for name in names)


def check_installed(data: TaskData) -> None:
    """Raise UserError where the lemmatiser is not here, as `questions` does."""
    questions.check_installed(_as_questions(data))


def scorer_versions(data: TaskData) -> dict[str, str]:
    """The version of the lemmatiser, as `questions` has it."""
    versions = questions.scorer_versions(_as_questions(data))
    return {name + suffix: version for _, suffix in _rules(data) for name, version in versions.items()}


def metrics() -> Sequence[Metric]:
    return ()


def _rules(data: TaskData) -> list[tuple[str, str]]:
    """[(a chosen rule of reading, its suffix)]."""
    return [(v.values["parse"], v.suffix) for v in variants(PARSE, data.scoring)]


def _as_questions(data: TaskData) -> TaskData:
    """The same questions as they are without a chat model, scored in the same ways."""
    return replace(data, kind="vqa", scoring={k: v for k, v in data.scoring.items() if k not in PARSE}, settings={})


def read(predictions: Predictions, variant: str, rule: str) -> tuple[Predictions, list[bool]]:
    """(the predictions with the answers that a rule reads from the replies, for which of them it took the vision-language
    model's own). variant: of the pipeline. rule: one of `parse.RULES`."""
    replies = predictions.text or []
    own = predictions.answer or [""] * len(replies)
    taken = [parse.answer(reply, parse.OWN, variant, rule) == parse.OWN for reply in replies]
    found = [parse.answer(*one, variant, rule) for one in zip(replies, own, strict=True)]
    return replace(predictions, text=found), taken


class Scorer:
    """Scores the answers that are read from the replies."""

    def __init__(self, data: TaskData) -> None:
        self.data, self._questions = data, questions.scorer(_as_questions(data))
        self.variant = str(data.settings.get("variant") or "caption")

    def warm(self) -> None:
        self._questions.warm()

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        self._questions.prepare([read(p, self.variant, rule)[0] for p in predictions for rule, _ in _rules(self.data)])

    def statistics(self, predictions: Predictions) -> dict[str, FloatArray]:
        found: dict[str, FloatArray] = {}
        for rule, suffix in _rules(self.data):
            answers, taken = read(predictions, self.variant, rule)
            own = {**self._questions.statistics(answers), FALLBACK.statistic: fallback_statistics(taken)}
            found |= {name + suffix: statistic for name, statistic in own.items()}
        return found


def scorer(data: TaskData) -> Scorer:
    return Scorer(data)
