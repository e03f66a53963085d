"""The one metric that a table is about: what its task says, else the first of METRICS' order that has a number."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from blip2sweep.analysis.main_metric import by_other_rules, main_metric, metric_of, metrics_of
from blip2sweep.metrics.statistics import CORE, METRICS, by_order, main_metrics
from blip2sweep.reporting.short_table import short_table
from tests.composing import plan

NAN = math.nan


def table(**columns: list[Any]) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_the_order_of_the_metrics_decides_where_no_task_says() -> None:
    assert [m for m in main_metrics() if m in CORE] == ["cider", "vqa_accuracy", "nll"]
    assert by_order(["nll", "meteor", "vqa_accuracy", "of nobody"]) == ["vqa_accuracy", "nll"]
    assert main_metric(table(nll=[1.0], meteor=[0.2], cider=[1.1])) == "cider"
    assert main_metric(table(nll=[1.0], cider=[NAN])) == "nll"
    assert main_metric(table(meteor=[0.2])) is None


@pytest.mark.parametrize(
    ("columns", "metrics"),
    [
        ({"cider": [1.0, NAN], "vqa_accuracy": [NAN, 0.5], "nll": [1.0, 2.0]}, ["cider", "vqa_accuracy"]),
        ({"nll": [1.0, 2.0]}, ["nll"]),
        ({"main_metric": ["vqa_accuracy", None], "cider": [NAN, 1.0], "vqa_accuracy": [0.5, NAN]}, ["cider", "vqa_accuracy"]),
        ({"main_metric": ["nll"] * 2, "cider": [1.0, 1.1], "nll": [1.0, 2.0]}, ["nll"]),
        ({"main_metric": ["bleu_4"] * 2, "cider": [1.0, 1.1], "bleu_4": [0.3, 0.4]}, ["bleu_4"]),
        ({"main_metric": ["bleu_4"] * 2, "cider": [1.0, 1.1], "bleu_4": [NAN] * 2}, []),
    ],
)  # fmt: skip
def test_what_a_task_says_goes_first(columns: dict[str, list[Any]], metrics: list[str]) -> None:
    assert metrics_of(table(**columns)) == metrics
    assert main_metric(table(**columns)) == next(iter(metrics), None)


def test_each_row_has_its_own() -> None:
    rows = table(main_metric=["bleu_4", None], cider=[1.0, 1.1], bleu_4=[0.3, 0.4]).to_dict("records")
    assert [metric_of(r, ["cider", "bleu_4"]) for r in rows] == ["bleu_4", "cider"]


def test_a_row_that_is_scored_by_several_rules_is_about_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default one, unless the row names another; the terminal shows the others beside it."""
    plain = METRICS["vqa_accuracy"]
    other = replace(plain, name="vqa_accuracy_mine", statistic="vqa_mine", plain="vqa_accuracy")
    monkeypatch.setitem(METRICS, other.name, other)
    both = {"vqa_accuracy": [0.5, 0.4], "vqa_accuracy_mine": [0.6, 0.5], "nll": [1.0, 2.0]}
    assert metrics_of(table(**both)) == ["vqa_accuracy"]
    assert metrics_of(table(**both, main_metric=["vqa_accuracy_mine"] * 2)) == ["vqa_accuracy_mine"]
    mixed = table(**both, main_metric=["vqa_accuracy_mine", None])
    found = metrics_of(mixed)
    assert [metric_of(row, found) for row in mixed.to_dict("records")] == ["vqa_accuracy_mine", "vqa_accuracy"]
    assert by_other_rules(mixed, "vqa_accuracy_mine") == ["vqa_accuracy"]
    assert by_other_rules(table(vqa_accuracy=[0.5]), "vqa_accuracy") == []
    rows = {"part": ["none", "vit"], "bits_vit": [NAN, 4.0], "bits_per_weight": [16.0, 8.0], "key": ["a", "b"]}
    short = short_table(table(**rows, **both, main_metric=["vqa_accuracy_mine"] * 2))
    assert [c for c in short if c.startswith("vqa")] == ["vqa_accuracy_mine", "vqa_accuracy"]


def test_a_row_says_it_where_a_table_could_not_tell() -> None:
    """It changes no key: what a sweep is about is no part of what a cell is."""
    told = {}
    for words in ((), ("task.main_metric=cider",), ("task.main_metric=bleu_4",)):
        (cell,) = plan("part=none", "task.limit=4", *words).cells.values()
        told[cell.columns().get("main_metric")] = cell.key
    assert told.keys() == {None, "bleu_4"}
    assert len(set(told.values())) == 1


def test_the_terminal_shows_it() -> None:
    rows = {"part": ["none", "vit"], "bits_vit": [NAN, 4.0], "bits_per_weight": [16.0, 8.0], "key": ["a", "b"]}
    drops = {"drop_bleu_4": [0.0, 0.1], "drop_bleu_4_low": [0.0, 0.05], "drop_bleu_4_high": [0.0, 0.15]}
    short = short_table(table(**rows, **drops, main_metric=["bleu_4"] * 2, cider=[1.0, 0.9], bleu_4=[0.4, 0.3]))
    assert list(short["bleu_4"]) == ["0.400", "0.300"]
    assert list(short["drop"]) == ["–", "0.100"]
    assert "cider" not in short


def test_rules_of_reading_and_of_scoring_are_of_one_metric() -> None:
    rows = table(vqa_accuracy=[0.5], vqa_accuracy_lavis=[0.4], vqa_accuracy_sane=[0.3], vqa_accuracy_lavis_sane=[0.2])
    others = ["vqa_accuracy", "vqa_accuracy_lavis", "vqa_accuracy_sane"]
    assert sorted(by_other_rules(rows, "vqa_accuracy_lavis_sane")) == others
    assert "vqa_accuracy_lavis_sane" in by_other_rules(rows, "vqa_accuracy")
