"""Scores of replies: read by each chosen rule, then scored as any answer is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blip2sweep.metrics import METRICS
from blip2sweep.results.scoring import Scorer
from blip2sweep.tasks import TaskData, load_task
from blip2sweep.tasks.content import images_digest
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.rounds import of_round
from scripts.miniatures import write
from tests.checkpoints import conf


def data(**fields: object) -> TaskData:
    return load_task({**conf("task/shapes_vqa"), "kind": "incontext", "limit": 6, **fields})


def predictions(task: TaskData, replies: list[str]) -> Predictions:
    n = len(task.samples)
    return Predictions(
        [s.id for s in task.samples], [s.image_id for s in task.samples], text=replies, tokens=[1] * n,
        nll_sum=[1.0] * n, nll_tokens=[1] * n, answer=[s.majority for s in task.samples], context=[["a photo of x"]] * n,
    )  # fmt: skip


def scores(task: TaskData, replies: list[str]) -> dict[str, float]:
    found = Scorer(task).statistics(predictions(task, replies))
    return {name: METRICS[name].value(found[METRICS[name].statistic]) for name in task.rules.scores(task)}


def test_each_rule_of_reading_has_a_score_of_its_own() -> None:
    task = data(parse=["published", "sane"])
    replies = ["unknown", *(f"{s.majority} (or so)" for s in task.samples[1:-1]), "certainly"]
    found = scores(task, replies)
    assert found["fallback_rate"] == pytest.approx(2 / 6)
    assert found["fallback_rate_sane"] == pytest.approx(1 / 6)
    alone = {name: scores(data(parse=rule), replies) for name, rule in (("", "published"), ("_sane", "sane"))}
    for suffix, own in alone.items():
        for name, value in own.items():
            assert name.endswith(suffix)
            np.testing.assert_equal(found[name], value)
    assert found["vqa_accuracy"] != found["vqa_accuracy_sane"]


def test_a_score_is_that_of_the_answers_alone() -> None:
    task, plain = data(), load_task({**conf("task/shapes_vqa"), "limit": 6})
    answers = [s.majority if i % 2 else "purple" for i, s in enumerate(task.samples)]
    told = replace(predictions(task, answers), answer=None, context=None)
    own, other = Scorer(task).statistics(told), Scorer(plain).statistics(told)
    assert {*other} <= {*own}
    for name, statistic in other.items():
        np.testing.assert_array_equal(own[name], statistic)


def test_replies_of_a_split_without_answers_have_no_main_metric(tmp_path: Path) -> None:
    write(tmp_path, ("vqav2",))
    config = {**conf("task/vqav2"), "data_dir": str(tmp_path / "vqav2"), "split": "test2015", "limit": 3}
    task = load_task({**config, "kind": "incontext", "parse": ["sane", "published"]})
    assert set(task.rules.scores(task)) == {"fallback_rate", "fallback_rate_sane"}
    assert task.main_metric == ""
    assert "main_metric" not in task.columns or task.columns["main_metric"] == ""
    assert load_task({**config, "kind": "incontext"}).columns == {}
    chosen = load_task({**config, "kind": "incontext", "main_metric": "fallback_rate"})
    assert chosen.main_metric == "fallback_rate"


def test_the_variant_says_how_a_last_reply_is_read() -> None:
    replies = ["Yes and no"] * 6
    caption, questions = data(variant="caption"), data(variant="questions")
    np.testing.assert_equal(scores(caption, replies), scores(data(), replies))
    refused = ["unknown"] * 6
    assert scores(caption, refused)["fallback_rate"] == 1
    assert scores(questions, refused)["fallback_rate"] == 0


def test_rounds_ask_each_sample_each_picture_or_each_text_once() -> None:
    task = data()
    assert of_round(task, {"name": "answers"}) is task
    captions = of_round(task, {"name": "captions"})
    assert [s.id for s in captions.samples] == [*task.images]
    assert captions.images == task.images
    texts = [["a?", "b?"], [], ["c?"], [], [], []]
    asked = of_round(task, {"name": "asked", "texts": texts})
    ids = [s.id for s in task.samples]
    assert [(s.id, s.question) for s in asked.samples] == [
        (f"0 of {ids[0]}", "a?"), (f"1 of {ids[0]}", "b?"), (f"0 of {ids[2]}", "c?"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="2 samples were asked for asked, and it has 6"):
        of_round(task, {"name": "asked", "texts": [["a?"], ["b?"]]})


def test_a_round_without_some_of_the_pictures_is_checked_against_its_own() -> None:
    whole = data(limit=9)
    planned = replace(whole, planned=whole.content)
    first = next(iter(whole.images))
    texts = [[] if s.image_id == first else ["a?"] for s in whole.samples]
    asked = of_round(planned, {"name": "asked", "texts": texts})
    assert first not in asked.images
    assert asked.images
    assert asked.planned == images_digest(asked.images)
    assert of_round(planned, {"name": "captions"}).planned == planned.planned
