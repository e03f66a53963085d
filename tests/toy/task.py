"""A task in one module: how its files are read, and what is asked: to choose among options."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image

from blip2sweep.errors import UserError
from blip2sweep.metrics.statistics import FloatArray, Metric
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.sample import Sample, TaskData
from blip2sweep.tasks.task import RequestType

KINDS: tuple[str, ...] = ("toy", "toy_choose", "toy_match")
REQUESTS: tuple[RequestType, ...] = ("likelihood", "choose")
PRESET = "vqa"
ASKS = True
COLORS = ("red", "green", "blue")


class Row(TypedDict):
    id: int
    image: str
    answer: str


def write(root: Path, n: int = 6) -> Path:
    """A data folder: n pictures of one colour each, and two splits that ask for it."""
    for split, first in (("test", 0), ("train", n)):
        ids = range(first, first + n)
        rows = [Row(id=i, image=f"{i}.png", answer=COLORS[i % 3]) for i in ids]
        for row in rows:
            picture = Image.new("RGB", (32, 32), row["answer"])
            picture.putpixel((0, 0), (row["id"],) * 3)  # no two are the same
            picture.save(root / row["image"])
        (root / f"{split}.json").write_text(json.dumps(rows))
    return root


def read(root: Path, split: str, limit: int | None) -> tuple[list[Sample], list[str]]:
    rows = json.loads((root / f"{split}.json").read_text())[:limit]
    asked = "What color is it?"
    samples = [
        Sample(r["id"], r["id"], root / r["image"], asked, (r["answer"],), choices=COLORS)
        for r in rows
    ]  # fmt: skip
    return samples, []


def check_prompt(prompt: str) -> None:
    if "{}" not in prompt:
        right = "'Question: {} Answer:'"
        raise UserError(f"generation.prompt={prompt!r}: no place for the question; right: {right}")


def prompt(sample: Sample, template: str) -> str:
    return template.replace("{}", sample.question or "")


def targets(sample: Sample, n: int) -> tuple[str, ...]:
    return sample.references[:n]


def scores(data: TaskData) -> tuple[str, ...]:
    return ("toy_accuracy",)


def columns(data: TaskData) -> dict[str, str]:
    return {"toy_choices": "/".join(COLORS)}


def metrics() -> Sequence[Metric]:
    def finish(sums: FloatArray) -> FloatArray:
        return sums[..., 0] / sums[..., 1]

    return [
        Metric(
            "toy_accuracy",
            "toy",
            finish,
            True,
            "1",
            (0, 1),
            label="toy accuracy",
            per_sample=True,
            order=2,
        )
    ]


class Scorer:
    def __init__(self, data: TaskData) -> None:
        self._right = {s.id: s.choices.index(s.references[0]) for s in data.samples}

    def warm(self) -> None:
        pass

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        pass

    def statistics(self, predictions: Predictions) -> dict[str, FloatArray]:
        assert predictions.choice is not None
        said = zip(predictions.id, predictions.choice, strict=True)
        right = [float(self._right[i] == choice) for i, choice in said]
        return {"toy": np.column_stack([right, np.ones(len(right))])}


def scorer(data: TaskData) -> Scorer:
    return Scorer(data)
