"""GQA's questions: a short answer that is right or wrong, by one of four rules (metrics/gqa.py)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from blip2sweep.canonical import canonical_json
from blip2sweep.metrics.gqa import ANY_ATTRIBUTE, Asked, GqaScorer, scored, statistics_of
from blip2sweep.metrics.gqa import SCORING as SCORING
from blip2sweep.metrics.metric import FloatArray, Metric
from blip2sweep.rows import Id
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.questions import check_prompt as check_prompt
from blip2sweep.tasks.questions import prompt as prompt
from blip2sweep.tasks.sample import Sample, TaskData
from blip2sweep.tasks.task import RequestType

REQUESTS: tuple[RequestType, ...] = ("generate", "likelihood")
PRESET = "vqa"
ASKS = True


def targets(sample: Sample, n: int) -> tuple[str, ...]:
    return sample.references[:n]


def scores(data: TaskData) -> tuple[str, ...]:
    """Groups, consistency, distribution, validity and plausibility only where the data has what they need."""
    own = scored(_asked(data))
    return tuple(name + v.suffix for v in data.variants for name in own)


def columns(data: TaskData) -> dict[str, str]:
    return {}


def scorer_versions(data: TaskData) -> dict[str, str]:
    """The digest of the choices, which may change while the samples stay, of the statistics of what is valid and
    plausible."""
    if "gqa_choices" not in statistics_of(_asked(data)):
        return {}
    total = hashlib.sha256()
    for sample in data.samples:
        total.update(canonical_json([sample.id, dict(sample.scoring)]).encode() + b"\n")
    return {"gqa_choices" + v.suffix: total.hexdigest() for v in data.variants}


def metrics() -> Sequence[Metric]:
    return ()


class Scorer:
    """Scores answers by each chosen rule. What depends on the questions alone is computed once."""

    def __init__(self, data: TaskData) -> None:
        asked = _asked(data)
        self._scorers = {v.suffix: GqaScorer(asked, v.values["rule"]) for v in data.variants}

    def warm(self) -> None:
        pass

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        pass

    def statistics(self, predictions: Predictions) -> dict[str, FloatArray]:
        return {
            name + suffix: array
            for suffix, scorer in self._scorers.items()
            for name, array in scorer.statistics(predictions.id, predictions.outputs).items()
        }


def scorer(data: TaskData) -> Scorer:
    return Scorer(data)


def _asked(data: TaskData) -> dict[Id, Asked]:
    return {s.id: _of(s) for s in data.samples}


def _of(sample: Sample) -> Asked:
    """What scores read of a question, from the details that tasks/gqa.py wrote."""
    told = cast("Mapping[str, Any]", sample.details)
    return Asked(
        answer=sample.references[0],
        structural=sample.answer_type or "",
        semantic=told.get("semantic", ""),
        steps=told.get("steps"),
        group=told.get("group"),
        entailed=tuple(told.get("entailed", ())),
        balanced=told.get("balanced", True),
        **{name: _listed(sample, name) for name in ("valid", "plausible")},
    )


def _listed(sample: Sample, name: str) -> frozenset[str] | None:
    """The answers that a choices file lists. Of what is common, the three attributes, as eval.py has it."""
    if name not in sample.scoring:
        return None
    common = "Common" in str(sample.details.get("detailed", ""))
    return frozenset(ANY_ATTRIBUTE if common else cast("Sequence[str]", sample.scoring[name]))
