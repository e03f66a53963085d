"""Questions with options: a text is generated, and the letter of an option is read from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from blip2sweep.metrics import groups, letters
from blip2sweep.metrics.metric import FloatArray, Metric
from blip2sweep.tasks import options
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.sample import Sample, TaskData
from blip2sweep.tasks.task import RequestType

REQUESTS: tuple[RequestType, ...] = ("generate", "likelihood")
PRESET = "vqa"
ASKS = True
SCORING: Mapping[str, tuple[str, ...]] = letters.LETTER_SCORING


def check_prompt(prompt: str) -> None:
    options.check_question_place(prompt)


def prompt(sample: Sample, template: str) -> str:
    return options.worded(sample, template)


def targets(sample: Sample, n: int) -> tuple[str, ...]:
    """The letter of the right option."""
    return (letters.LETTERS[options.right_option(sample)],) if n else ()


def scores(data: TaskData) -> tuple[str, ...]:
    masks = np.array([letters.groups_of(s.details) for s in data.samples])
    own = [*groups.scored("option_accuracy", tuple(letters.GROUPS), masks), "unread_rate"]
    return tuple(name + v.suffix for v in data.variants for name in own)


def columns(data: TaskData) -> dict[str, str]:
    """The column `asks_for`, because one data set may be asked for letters and for choices."""
    return {"asks_for": "letter"}


def metrics() -> Sequence[Metric]:
    return ()


class Scorer:
    """Scores answers. The groups of all samples are found once."""

    def __init__(self, data: TaskData) -> None:
        self._variants, self._known = data.variants, options.Known(data.samples)

    def warm(self) -> None:
        pass

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        pass

    def statistics(self, predictions: Predictions) -> dict[str, FloatArray]:
        right, counts, masks = self._known.of(predictions.id)
        found = dict[str, FloatArray]()
        for v in self._variants:
            asked = zip(predictions.outputs, counts, strict=True)
            said = [letters.read_letter(text, count, v.values["rule"]) for text, count in asked]
            scored = np.array([float(a == b) for a, b in zip(said, right, strict=True)])
            unread = np.array([float(x is None) for x in said])
            found["option" + v.suffix] = groups.grouped(scored, masks)
            found["unread" + v.suffix] = np.column_stack([unread, np.ones_like(unread)])
        return found


def scorer(data: TaskData) -> Scorer:
    return Scorer(data)
