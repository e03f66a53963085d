"""A kind that is scored by several rules, a setting of its format, and one that is part of the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from blip2sweep.errors import UserError
from blip2sweep.metrics.metric import FloatArray, Metric, ratio
from blip2sweep.metrics.variants import with_variants
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.sample import Sample, TaskData
from blip2sweep.tasks.task import RequestType
from tests.toy import task as toy
from tests.toy.task import COLORS, check_prompt, prompt, targets

__all__ = ["check_prompt", "prompt", "targets"]

KINDS: tuple[str, ...] = ("toy_rules",)
OPTIONS: tuple[str, ...] = ("ocr_tokens",)
REQUESTS: tuple[RequestType, ...] = ("generate",)
SCORING: Mapping[str, tuple[str, ...]] = {"rule": ("strict", "color"), "lemmatize": ("none", "stem")}
IDENTITY: tuple[str, ...] = ("k",)
PRESET = "vqa"
ASKS = True
MODEL = {"version": "1.0"}  # of what is installed beside the package, as tests change it
SCORED: list[str] = []  # the rule of each call of `statistics`


def read(
    root: Path, split: str, limit: int | None, ocr_tokens: object = None, images: object = None
) -> tuple[list[Sample], list[str]]:
    samples, notes = toy.read(root, split, limit)
    details = {"ocr": [str(ocr_tokens)]} if ocr_tokens else {}
    return [replace(s, choices=(), details=details) for s in samples], notes


def check_settings(settings: Mapping[str, object]) -> None:
    if settings.get("k") == 13:
        raise UserError("task.k=13: unlucky; right: another number")


def scores(data: TaskData) -> tuple[str, ...]:
    return tuple(f"toy_{name}{v.suffix}" for v in data.variants for name in ("right", "half"))


def columns(data: TaskData) -> dict[str, str]:
    return {}


def metrics() -> Sequence[Metric]:
    right = ratio("toy_right", "toy_right", (0, 1), True, "1", label="toy right", per_sample=True, order=4)
    return with_variants([right, ratio("toy_half", "toy_right", (2, 1), True, "1")], SCORING)


def scorer_versions(data: TaskData) -> Mapping[str, str]:
    stemmed = (v.suffix for v in data.variants if v.values["lemmatize"] == "stem")
    return {f"toy_right{suffix}": f"stemmer {MODEL['version']}" for suffix in stemmed}


def rows(data: TaskData, said: Predictions, rule: str) -> FloatArray:
    """(n, 3): whether the answer is the reference, or any color; 1; half of the first."""
    SCORED.append(rule)
    own = {s.id: s.references if rule == "strict" else COLORS for s in data.samples}
    right = np.array([float(text in own[i]) for i, text in zip(said.id, said.outputs, strict=True)])
    return np.column_stack([right, np.ones(len(right)), right / 2])


class Scorer:
    def __init__(self, data: TaskData) -> None:
        self._data = data

    def warm(self) -> None:
        pass

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        pass

    def statistics(self, predictions: Predictions) -> dict[str, FloatArray]:
        own = self._data.variants
        return {f"toy_right{v.suffix}": rows(self._data, predictions, v.values["rule"]) for v in own}


def scorer(data: TaskData) -> Scorer:
    return Scorer(data)
