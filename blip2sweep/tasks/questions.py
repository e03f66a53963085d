"""Questions: a short answer, compared with people's answers by the rule of VQAv2."""

from __future__ import annotations

from collections.abc import Sequence

from blip2sweep.errors import UserError
from blip2sweep.metrics.statistics import METRICS, FloatArray, Metric
from blip2sweep.metrics.vqa import rule_of, vqa_statistics
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.sample import Sample, TaskData
from blip2sweep.tasks.task import RequestType

REQUESTS: tuple[RequestType, ...] = ("generate", "likelihood")
PRESET = "vqa"
ASKS = True


def check_prompt(prompt: str) -> None:
    if prompt.count("{}") != 1:
        raise UserError(
            f"generation.prompt={prompt!r}: no place for the question; right: such as 'Question: {{}} Answer:'"
        )


def prompt(sample: Sample, template: str) -> str:
    return template.replace("{}", sample.question or "")


def targets(sample: Sample, n: int) -> tuple[str, ...]:
    """The majority answer alone, since most other answers equal it."""
    return (sample.majority,) if n else ()


def scores(data: TaskData) -> tuple[str, ...]:
    return tuple(m.name for m in METRICS.values() if m.statistic == "vqa")


def columns(data: TaskData) -> dict[str, str]:
    """The column `vqa_rule`: how questions are scored, by their number of answers."""
    return {"vqa_rule": rule_of([s.references for s in data.samples])}


def metrics() -> Sequence[Metric]:
    return ()


class Scorer:
    """Scores answers. It keeps no data of the references."""

    def __init__(self, data: TaskData) -> None:
        self._samples = {s.id: s for s in data.samples}

    def warm(self) -> None:
        pass

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        pass

    def statistics(self, predictions: Predictions) -> dict[str, FloatArray]:
        samples = [self._samples[i] for i in predictions.id]
        return vqa_statistics(predictions.outputs, [s.references for s in samples], [s.answer_type for s in samples])


def scorer(data: TaskData) -> Scorer:
    return Scorer(data)
