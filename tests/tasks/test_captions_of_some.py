"""Captions of a cell that stopped early: each scores as it does among all, since document frequencies are those of all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blip2sweep.tasks import TaskData
from blip2sweep.tasks.captions import quick_scorer
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.sample import Sample

REFERENCES = (
    ("a red circle", "one circle"),
    ("a blue square",),
    ("a red square and a circle", "shapes"),
    ("two circles",),
)
SAID = ["a red circle", "a square", "a red circle", "two circles"]


@pytest.fixture
def data() -> TaskData:
    samples = tuple(Sample(i, 10 + i, Path("x.png"), None, texts) for i, texts in enumerate(REFERENCES))
    return TaskData("t", "caption", samples, "f", scoring={"tokenizer": ("none",)}, main_metric="cider_none")


def said(*which: int) -> Predictions:
    return Predictions([*which], [10 + i for i in which], [SAID[i] for i in which])


def cider(data: TaskData, *which: int) -> list[float]:
    found = quick_scorer(data).statistics(said(*which))
    assert [*found] == ["cider_none"]
    return list(found["cider_none"][:, 0])


def test_a_part_scores_as_it_does_among_all(data: TaskData) -> None:
    whole = cider(data, 0, 1, 2, 3)
    assert np.ptp(whole) > 0
    assert cider(data, 0, 2) == [whole[0], whole[2]]
    assert cider(data, 3) == whole[3:]


def test_where_pictures_are_skipped_the_others_are_the_set(data: TaskData) -> None:
    skipping = replace(data, on_bad_image="skip")
    assert cider(skipping, 0, 1, 2, 3) == cider(data, 0, 1, 2, 3)
    assert cider(skipping, 0, 2) != cider(data, 0, 2)
