"""Captions: one text for each picture, compared with people's captions of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

from blip2sweep.errors import UserError
from blip2sweep.metrics.captions import CAPTION_METRICS, CaptionScorer
from blip2sweep.metrics.meteor import shared_meteor
from blip2sweep.metrics.statistics import FloatArray, Metric
from blip2sweep.rows import Id
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.sample import Sample, TaskData
from blip2sweep.tasks.task import RequestType

REQUESTS: tuple[RequestType, ...] = ("generate", "likelihood")
PRESET = "caption"
ASKS = False


def check_prompt(prompt: str) -> None:
    if "{}" in prompt:
        raise UserError(
            f"generation.prompt={prompt!r}: a caption has no question for {{}}; right: such as 'a photo of', or ''"
        )


def prompt(sample: Sample, template: str) -> str:
    return template


def targets(sample: Sample, n: int) -> tuple[str, ...]:
    return tuple(caption_as_trained(text) for text in sample.references[:n])


def caption_as_trained(caption: str) -> str:
    """A caption as BLIP-2 was trained on it (LAVIS, `blip_caption`): lower case, without `.!"()*#:;~`.

    On raw references the likelihood would measure capitals and full stops, which the model never writes.
    """
    return " ".join(re.sub(r"[.!\"()*#:;~]", " ", caption.lower()).split())


def scores(data: TaskData) -> tuple[str, ...]:
    return CAPTION_METRICS


def columns(data: TaskData) -> dict[str, str]:
    return {}


def metrics() -> Sequence[Metric]:
    return ()


class Scorer:
    """Scores captions. References are tokenised once, and one METEOR process serves all cells."""

    def __init__(self, data: TaskData) -> None:
        self.samples = data.samples
        self._of_some: dict[tuple[Id, ...], CaptionScorer] = {}

    @cached_property
    def _all(self) -> CaptionScorer:
        return CaptionScorer([s.references for s in self.samples])

    def warm(self) -> None:
        """Start METEOR, which takes some seconds."""
        assert self._all
        shared_meteor().statistics([["a"]], ["a"])

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        self._all.prepare([text for said in predictions for text in said.outputs])

    def statistics(self, predictions: Predictions) -> dict[str, FloatArray]:
        return self._of(predictions).statistics(predictions.outputs)

    def _of(self, predictions: Predictions) -> CaptionScorer:
        """The scorer of all samples. Where samples were skipped, a scorer of the others, because document frequencies
        belong to the scored set."""
        if len(predictions.id) == len(self.samples):
            return self._all
        ids = tuple(predictions.id)
        if ids not in self._of_some:
            chosen = {s.id: s for s in self.samples}
            self._of_some = {ids: CaptionScorer([chosen[i].references for i in ids])}  # cells skip the same samples
        return self._of_some[ids]


def scorer(data: TaskData) -> Scorer:
    return Scorer(data)
