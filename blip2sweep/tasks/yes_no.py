"""Yes or no: a generated answer, scored as POPE's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blip2sweep.metrics import yes_no
from blip2sweep.metrics.metric import FloatArray, Metric
from blip2sweep.tasks.options import check_question_place
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.sample import Sample, TaskData
from blip2sweep.tasks.task import RequestType

REQUESTS: tuple[RequestType, ...] = ("generate", "likelihood")
PRESET = "vqa"
ASKS = True
SCORING: Mapping[str, tuple[str, ...]] = yes_no.SCORING


def check_prompt(prompt: str) -> None:
    check_question_place(prompt)


def prompt(sample: Sample, template: str) -> str:
    return template.replace("{}", sample.question or "")


def targets(sample: Sample, n: int) -> tuple[str, ...]:
    """The right word, as annotators wrote it: in small letters."""
    return sample.references[:1] if n else ()


def scores(data: TaskData) -> tuple[str, ...]:
    own = yes_no.scored([s.details.get("category") for s in data.samples])
    return tuple(name + v.suffix for v in data.variants for name in own)


def columns(data: TaskData) -> dict[str, str]:
    return {}


def metrics() -> Sequence[Metric]:
    return ()


class Scorer:
    """Scores answers. It keeps no data of the references."""

    def __init__(self, data: TaskData) -> None:
        self._variants = data.variants
        self._of = {s.id: (s.references[0], s.details.get("category")) for s in data.samples}

    def warm(self) -> None:
        pass

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        pass

    def statistics(self, predictions: Predictions) -> dict[str, FloatArray]:
        labels, categories = zip(*(self._of[i] for i in predictions.id), strict=True) if predictions.id else ((), ())
        texts = predictions.outputs
        return {
            yes_no.STATISTIC + v.suffix: yes_no.yes_no_statistics(texts, labels, categories, v.values["rule"])
            for v in self._variants
        }


def scorer(data: TaskData) -> Scorer:
    return Scorer(data)
