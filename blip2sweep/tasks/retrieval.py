"""Retrieval: each picture looks for its captions among those of all pictures, and each caption for its picture.

Scored as LAVIS evaluates BLIP-2 (lavis/tasks/retrieval.py; compute_sim_matrix of lavis/models/blip2_models/blip2.py):
the k best texts of each picture and the k best pictures of each text by contrast (ITC) are read together (ITM), and their
score is the ITM logit plus the cosine. All others come behind. A picture finds the best of its own captions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from blip2sweep.errors import UserError
from blip2sweep.metrics.recall import METRICS as RECALLS
from blip2sweep.metrics.recall import Pairs, recall_statistics
from blip2sweep.metrics.statistics import FloatArray, Metric
from blip2sweep.rows import Id
from blip2sweep.tasks.captions import caption_as_trained
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.sample import Sample, TaskData
from blip2sweep.tasks.task import LEFT_OUT, RequestType

REQUESTS: tuple[RequestType, ...] = ("match",)
PRESET = ""
ASKS = False
IDENTITY = ("k",)  # settings of the task that change what is predicted
MOST_WORDS, MOST_TOKENS = 50, 35  # of a text, as LAVIS cuts it: blip_caption, then the tokenizer


def check_prompt(prompt: str) -> None:
    """Nothing stands before a caption."""


def prompt(sample: Sample, template: str) -> str:
    return ""


def targets(sample: Sample, n: int) -> tuple[str, ...]:
    return tuple(text_as_read(text) for text in sample.references[:n])


def text_as_read(caption: str) -> str:
    """A caption as the model reads it: LAVIS's blip_caption, at most 50 words."""
    return " ".join(caption_as_trained(caption).split()[:MOST_WORDS])


def candidates(data: TaskData) -> tuple[str, ...]:
    """All captions of all pictures, in file order. A number of a text is its place here."""
    return tuple(text for s in data.samples for text in targets(s, len(s.references)))


def check_settings(settings: Mapping[str, object]) -> None:
    """Raise UserError for a k that is no positive integer."""
    k = settings.get("k")
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise UserError(f"task.k={k}: right: a positive integer, such as 128: so many of each side's best are scored")


def resolved_settings(settings: Mapping[str, object], samples: Sequence[Sample]) -> dict[str, object]:
    """A k beyond what there is to find is all there is, so that it makes no key of its own."""
    most = max(len(samples), sum(len(s.references) for s in samples))
    return {**settings, "k": min(int(str(settings["k"])), most)}


def scores(data: TaskData) -> tuple[str, ...]:
    return tuple(metric.name for metric in RECALLS)


def columns(data: TaskData) -> dict[str, str]:
    return {}


def metrics() -> Sequence[Metric]:
    return ()


class Scorer:
    """Recalls from the scored pairs alone."""

    def __init__(self, data: TaskData) -> None:
        self.data = data

    @cached_property
    def _own(self) -> dict[Id, tuple[int, int]]:
        """The numbers of each sample's own texts, the first and the last."""
        return own_texts(self.data)

    def warm(self) -> None:
        pass

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        pass

    def statistics(self, predictions: Predictions) -> dict[str, FloatArray]:
        said = predictions
        if said.texts is None or said.scores is None or said.asking is None or said.asking_scores is None:
            raise ValueError("predictions of retrieval without the pairs that were scored")
        own = np.array([self._own[i] for i in said.id], dtype=np.int64).reshape(-1, 2)
        asked = Pairs.of_rows(said.texts, said.scores)
        asking = Pairs.of_rows(said.asking, said.asking_scores).turned
        texts = sum(len(s.references) for s in self.data.samples)
        return recall_statistics(asked, asking, own[:, 0], own[:, 1], texts, LEFT_OUT)


def scorer(data: TaskData) -> Scorer:
    return Scorer(data)


def own_texts(data: TaskData) -> dict[Id, tuple[int, int]]:
    """{sample: the numbers of its first and its last text}."""
    ends = accumulate(len(s.references) for s in data.samples)
    return {s.id: (end - len(s.references), end - 1) for s, end in zip(data.samples, ends, strict=True)}


Found = tuple[tuple[str, tuple[Id, ...]], ...]  # captions, each with sample ids


class Ranking(NamedTuple):
    """What is found, for people: the best captions of a picture as (text, whether it is the picture's own), and for each
    caption of the picture's own (text, the best pictures' sample ids), the best first."""

    captions: tuple[tuple[str, bool], ...]
    pictures: Found


def rankings(data: TaskData, predictions: Predictions, most: int = 5) -> list[Ranking]:
    """The ranking of each sample, in the order of the predictions. Pictures that were not read are found by nobody."""
    both = zip(best_captions(data, predictions, most), found_pictures(data, predictions, most), strict=True)
    return [Ranking(captions, pictures) for captions, pictures in both]


def found_pictures(data: TaskData, predictions: Predictions, most: int) -> list[Found]:
    """For each sample its own captions, each with the sample ids of its best pictures, the best first."""
    texts, own = [text for s in data.samples for text in s.references], own_texts(data)
    best = best_pictures(predictions, most)
    ranges = (range(own[i][0], own[i][1] + 1) for i in predictions.id)
    return [tuple((texts[j], tuple(best.get(j, ()))) for j in captions) for captions in ranges]


def best_captions(data: TaskData, predictions: Predictions, most: int = 5) -> list[tuple[tuple[str, bool], ...]]:
    """For each sample its best captions, as (text, whether it is the picture's own), the best first."""
    texts, own = [text for s in data.samples for text in s.references], own_texts(data)
    rows = zip(predictions.id, predictions.rankings(most), strict=True)
    return [tuple((texts[j], own[i][0] <= j <= own[i][1]) for _, j in found) for i, found in rows]


def readable(data: TaskData, predictions: Predictions) -> list[str]:
    """The best captions of each picture, a line each, with a mark at those of the picture's own."""
    return [
        "\n".join(f"{'✓' if right else '·'} {text}" for text, right in found)
        for found in best_captions(data, predictions)
    ]


def best_pictures(predictions: Predictions, most: int) -> dict[int, list[Id]]:
    """{number of a text: sample ids of its best pictures}, the best first; the later one of equals comes first."""
    found = Pairs.of_rows(predictions.asking or [], predictions.asking_scores or [])
    order = np.lexsort((-found.query, -found.score, found.candidate))
    best: dict[int, list[Id]] = {}
    for text, row in zip(found.candidate[order].tolist(), found.query[order].tolist(), strict=True):
        if len(own := best.setdefault(text, [])) < most:
            own.append(predictions.id[row])
    return best
