"""The captions that lost their picture, from rankings of the baseline and of a cell."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from blip2sweep.reporting import queries
from blip2sweep.reporting.source import Source
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.retrieval import Found

BASE, CELL = (Predictions([7, 8], [7, 8], texts=[[0], [1]], scores=[[n], [n]]) for n in (1.0, 0.0))
BEFORE: list[Found] = [(("a dog", (7, 8)),), (("a cat", (8, 7)), ("a cow", (7, 8)))]
NOW: list[Found] = [(("a dog", (8, 7)),), (("a cat", (7,)), ("a cow", (7, 8)))]


def source(rules: object) -> Source:
    return cast("Source", SimpleNamespace(output_dir=None, task=SimpleNamespace(rules=rules)))


def ranked(_: object, said: Predictions, most: int) -> list[Found]:
    assert most == queries.SEEN
    return BEFORE if said is BASE else NOW


@pytest.fixture(autouse=True)
def _read(monkeypatch: pytest.MonkeyPatch) -> None:
    there: dict[str, Any] = {"c-1": CELL, "o-1": Predictions([9], [9]), "gone-1": None}
    monkeypatch.setattr(queries, "predictions_or_none", lambda _, name: there[name])


def test_those_whose_picture_fell_most_come_first() -> None:
    lost = queries.lost_queries(source(SimpleNamespace(found_pictures=ranked)), BASE, [("c", "1")])
    assert lost == [
        [
            {"sample": 1, "text": "a cat", "before": [1, 0], "now": [0]},  # not found at all any more
            {"sample": 0, "text": "a dog", "before": [0, 1], "now": [1, 0]},  # from the first to the second
        ]
    ]


def test_other_samples_and_lost_files_have_none() -> None:
    names = [("o", "1"), ("gone", "1")]
    assert queries.lost_queries(source(SimpleNamespace(found_pictures=ranked)), BASE, names) == [[], []]


def test_a_task_that_ranks_nothing_has_none() -> None:
    assert queries.lost_queries(source(SimpleNamespace()), BASE, [("c", "1")]) == []
