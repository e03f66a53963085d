"""Questions with options: the likeliest option is chosen, by the likelihood of its text after the prompt.

`task.option_score` says what is compared: the sum over an option's tokens, or the mean. Both come from one inference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from blip2sweep.metrics import groups, letters
from blip2sweep.metrics.metric import FloatArray, Metric
from blip2sweep.tasks import options
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.sample import Sample, TaskData
from blip2sweep.tasks.task import RequestType

REQUESTS: tuple[RequestType, ...] = ("likelihood", "choose")
PRESET = "vqa"
ASKS = True
SCORING: Mapping[str, tuple[str, ...]] = letters.CHOICE_SCORING


def check_prompt(prompt: str) -> None:
    options.check_question_place(prompt)


def prompt(sample: Sample, template: str) -> str:
    return options.worded(sample, template)


def targets(sample: Sample, n: int) -> tuple[str, ...]:
    """The text of the right option."""
    return sample.references[:1] if n else ()


def scores(data: TaskData) -> tuple[str, ...]:
    masks = np.array([letters.groups_of(s.details) for s in data.samples])
    own = groups.scored("option_accuracy", tuple(letters.GROUPS), masks)
    return tuple(name + v.suffix for v in data.variants for name in own)


def columns(data: TaskData) -> dict[str, str]:
    """The column `asks_for`, because one data set may be asked for letters and for choices."""
    return {"asks_for": "choice"}


def readable(data: TaskData, predictions: Predictions) -> list[str]:
    """The text of each option that is counted as chosen, by the first of the chosen `option_score`; empty where no option
    has a finite likelihood."""
    choices, score = {s.id: s.choices for s in data.samples}, data.variants[0].values["option_score"]
    asked = zip(predictions.id, predictions.option_nll or (), predictions.option_tokens or (), strict=True)
    best = [(choices[i], letters.best_option(nll, tokens, score)) for i, nll, tokens in asked]
    return ["" if place is None else own[place] for own, place in best]


def metrics() -> Sequence[Metric]:
    return ()


class Scorer:
    """Scores choices. The groups of all samples are found once."""

    def __init__(self, data: TaskData) -> None:
        self._variants, self._known = data.variants, options.Known(data.samples)

    def warm(self) -> None:
        pass

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        pass

    def statistics(self, predictions: Predictions) -> dict[str, FloatArray]:
        assert predictions.option_nll is not None
        assert predictions.option_tokens is not None
        right, _, masks = self._known.of(predictions.id)
        found = dict[str, FloatArray]()
        for v in self._variants:
            asked = zip(predictions.option_nll, predictions.option_tokens, strict=True)
            said = [letters.best_option(nll, tokens, v.values["option_score"]) for nll, tokens in asked]
            scored = np.array([float(a == b) for a, b in zip(said, right, strict=True)])
            found["option" + v.suffix] = groups.grouped(scored, masks)
        return found


def scorer(data: TaskData) -> Scorer:
    return Scorer(data)
