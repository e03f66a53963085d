"""Captions: one text for each picture, compared with people's captions of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property, lru_cache

from blip2sweep.errors import UserError
from blip2sweep.metrics.captions import CAPTION_METRICS, TOKENIZER, CaptionScorer
from blip2sweep.metrics.domains import DOMAIN_CIDER, DOMAINS
from blip2sweep.metrics.meteor import shared_meteor
from blip2sweep.metrics.statistics import FloatArray, Metric
from blip2sweep.metrics.variants import Declared
from blip2sweep.rows import Id
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.sample import Sample, TaskData
from blip2sweep.tasks.task import RequestType

REQUESTS: tuple[RequestType, ...] = ("generate", "likelihood")
PRESET = "caption"
ASKS = False
SCORING: Declared = TOKENIZER

Scorers = dict[str, CaptionScorer]  # {suffix of a variant: its scorer}


def check_prompt(prompt: str) -> None:
    if "{}" in prompt:
        raise UserError(
            f"generation.prompt={prompt!r}: a caption has no question for {{}}; right: such as 'a photo of', or ''"
        )


def prompt(sample: Sample, template: str) -> str:
    """The sample's own prompt where it has one, as a user's data may."""
    return template if sample.question is None else sample.question


def targets(sample: Sample, n: int) -> tuple[str, ...]:
    return tuple(caption_as_trained(text) for text in sample.references[:n])


@lru_cache(maxsize=2**18)  # every cell asks for those of all images
def caption_as_trained(caption: str) -> str:
    """A caption as BLIP-2 was trained on it (LAVIS, `blip_caption`): lower case, without `.!"()*#:;~`.

    On raw references the likelihood would measure capitals and full stops, which the model never writes.
    """
    return " ".join(re.sub(r"[.!\"()*#:;~]", " ", caption.lower()).split())


def scores(data: TaskData) -> tuple[str, ...]:
    own = set(_domains(data.samples))
    names = (*CAPTION_METRICS, *(m.name for d, m in zip(DOMAINS, DOMAIN_CIDER, strict=True) if d in own))
    return tuple(name + variant.suffix for variant in data.variants for name in names)


def columns(data: TaskData) -> dict[str, str]:
    return {}


def metrics() -> Sequence[Metric]:
    return ()


class Scorer:
    """Scores captions. References are tokenised once a tokenizer, and one METEOR process serves all cells."""

    def __init__(self, data: TaskData, metrics: Sequence[str] = CAPTION_METRICS) -> None:
        self.samples, self.variants, self.metrics = data.samples, data.variants, metrics
        self.skips = data.on_bad_image == "skip"
        self._of_some: dict[tuple[Id, ...], Scorers] = {}

    @cached_property
    def _all(self) -> Scorers:
        return self._scorers(self.samples)

    def warm(self) -> None:
        """Start METEOR, which takes some seconds."""
        assert self._all
        shared_meteor().statistics([["a"]], ["a"])

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        texts = [text for said in predictions for text in said.outputs]
        for own in self._all.values():
            own.prepare(texts)

    def statistics(self, predictions: Predictions) -> dict[str, FloatArray]:
        scorers, places = self._of(predictions), self._places(predictions)
        found = ((suffix, own.statistics(predictions.outputs, places)) for suffix, own in scorers.items())
        return {name + suffix: array for suffix, arrays in found for name, array in arrays.items()}

    def _of(self, predictions: Predictions) -> Scorers:
        """The scorers of all samples. Where samples were skipped, scorers of the others, because document frequencies
        belong to the scored set. A cell that stopped early belongs to the set of all."""
        if len(predictions.id) == len(self.samples) or not self.skips:
            return self._all
        ids = tuple(predictions.id)
        if ids not in self._of_some:
            chosen = {s.id: s for s in self.samples}
            self._of_some = {ids: self._scorers([chosen[i] for i in ids])}  # cells skip the same samples
        return self._of_some[ids]

    def _places(self, predictions: Predictions) -> list[int] | None:
        """Where the samples of a cell that stopped early stand among all; None for any other."""
        if len(predictions.id) == len(self.samples) or self.skips:
            return None
        place = {s.id: i for i, s in enumerate(self.samples)}
        return [place[i] for i in predictions.id]

    def _scorers(self, samples: Sequence[Sample]) -> Scorers:
        references, domains = [s.references for s in samples], _domains(samples)
        return {
            v.suffix: CaptionScorer(references, metrics=self.metrics, tokenizer=v.values["tokenizer"], domains=domains)
            for v in self.variants
        }


def _domains(samples: Sequence[Sample]) -> list[str]:
    """The domain of each sample; empty where they have none."""
    return [str(s.details["domain"]) for s in samples if "domain" in s.details]


def scorer(data: TaskData) -> Scorer:
    return Scorer(data)


def quick_scorer(data: TaskData) -> Scorer:
    """CIDEr alone: METEOR takes seconds, and is known of all images alone."""
    return Scorer(data, ["cider"])
