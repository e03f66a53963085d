"""Answers read by the rules of POPE, ScienceQA and MMMU: equal to the official code, and their scores by hand.

answers_read.json: 200 odd answers and what the official code made of them, run once outside of this project: evaluate.py
of AoiDragon/POPE (f3ec604), eval_science_qa.py of haotian-liu/LLaVA 1.5, eval_utils.py of MMMU-Benchmark/MMMU (bb91f23),
and lmms-eval 0.7.3. The rules of this project gave the same on 2 x 20,000 such answers for each.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blip2sweep.metrics import METRICS
from blip2sweep.metrics.letters import GROUPS, best_option, groups_of, read_letter
from blip2sweep.metrics.mmmu import (
    DISCIPLINES,
    SUBJECTS,
    group_masks,
    guess,
    mmmu_statistics,
    read_option,
    short_answer_right,
)
from blip2sweep.metrics.yes_no import read_answer, yes_no_statistics

FROZEN: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parent / "answers_read.json").read_text())


def test_yes_and_no_equal_the_official_code() -> None:
    for case in FROZEN["yes_no"]:
        assert read_answer(case["text"]) == case["official"], case
        assert (read_answer(case["text"], "lmms") == case["label"]) == bool(case["lmms"]), case


def test_letters_equal_the_official_code() -> None:
    for case in FROZEN["letter"]:
        found = read_letter(case["text"], case["options"])
        assert (-1 if found is None else found) == case["llava"], case
        assert (read_letter(case["text"], case["options"], "lmms") == case["answer"]) == bool(case["lmms"]), case


def test_options_and_short_answers_equal_the_official_code() -> None:
    for case in FROZEN["option"]:
        assert read_option(case["text"], case["options"]) == case["official"], case
    for case in FROZEN["short"]:
        assert short_answer_right(case["text"], case["answers"]) == case["official"], case


@pytest.mark.parametrize(
    ("text", "official", "lmms"),
    [("No, there is not.", "no", None), ("", "yes", None), ("NO", "yes", "no"), ("no\n", "yes", "no"), ("Yes", "yes", "yes")],
)  # fmt: skip
def test_what_the_rules_of_pope_differ_in(text: str, official: str, lmms: str | None) -> None:
    assert (read_answer(text), read_answer(text, "lmms")) == (official, lmms)


# By hand: random has TP 2, FN 1, TN 1; popular TP 1, FP 1. Read by lmms, "maybe" is wrong and neither found nor missed.
SAID = ["yes", "yes", "no", "no", "yes", "maybe"]
TRUE = ["yes", "yes", "yes", "no", "yes", "no"]
FILES = ["random"] * 4 + ["popular"] * 2


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("official", {"accuracy": 4 / 6, "precision": 3 / 4, "recall": 3 / 4, "f1": 6 / 8, "f1_random": 4 / 5,
                      "f1_popular": 2 / 3, "f1_mean": (4 / 5 + 2 / 3) / 2, "accuracy_random": 3 / 4}),
        ("lmms", {"accuracy": 4 / 6, "precision": 1.0, "recall": 3 / 4, "f1": 6 / 7, "f1_popular": 1.0}),
    ],
)  # fmt: skip
def test_pope_by_hand(rule: str, expected: dict[str, float]) -> None:
    sums = yes_no_statistics(SAID, TRUE, FILES, rule)
    for name, value in expected.items():
        assert METRICS[f"yes_no_{name}"].value(sums) == pytest.approx(value), name
    ratio = {"official": 4 / 6, "lmms": 4 / 6}[rule]  # of the answers, or of the labels
    assert METRICS["yes_ratio"].value(sums) == pytest.approx(ratio)
    assert np.isnan(METRICS["yes_no_f1_adversarial"].value(sums))


def test_a_model_that_never_says_yes_has_an_f1_of_0() -> None:
    sums = yes_no_statistics(["no"] * 4, ["yes", "no"] * 2, ["random"] * 4)
    assert [METRICS[f"yes_no_{n}"].value(sums) for n in ("f1", "f1_mean", "precision", "recall")] == [0, 0, 0, 0]
    assert METRICS["yes_no_accuracy"].value(sums) == 0.5


def test_samples_of_no_file_of_pope_have_one_f1() -> None:
    sums = yes_no_statistics(SAID, TRUE, [None] * 6)
    assert METRICS["yes_no_f1_mean"].value(sums) == METRICS["yes_no_f1"].value(sums) == pytest.approx(6 / 8)


def test_options_by_likelihood() -> None:
    nll, tokens = [4.0, 3.0, 3.5], [4, 1, 2]
    assert best_option(nll, tokens) == 1
    assert best_option(nll, tokens, "mean") == 0
    assert best_option([None, 3.0], [1, 1]) == 1
    assert best_option([2.0, 2.0], [1, 1]) == 0  # the first of equals
    assert best_option([None, float("nan")], [1, 1]) is None


def test_the_groups_of_scienceqa() -> None:
    found = groups_of({"subject": "social science", "grade": "grade10", "hint": "A map."})
    assert [name for name, own in zip(GROUPS, found, strict=True) if own] == ["soc", "txt", "g7_12"]
    assert not any(groups_of({"grade": "of the third year"}))


def test_mmmu_by_hand() -> None:
    masks = group_masks(["Art", "Music", "Math", "Math"], [True, True, True, False])
    found = mmmu_statistics([1, 0, 0.25, 1], [False, False, True, False], masks)
    of = {name: METRICS[f"mmmu_{name}"].value(found["mmmu"]) for name in (
        "accuracy", "accuracy_art", "accuracy_art_and_design", "accuracy_science", "accuracy_open",
        "accuracy_multiple_choice", "accuracy_pharmacy")}  # fmt: skip
    assert np.isnan(of.pop("accuracy_pharmacy"))
    assert list(of.values()) == pytest.approx([2.25 / 4, 1, 0.5, 1.25 / 2, 1, 1.25 / 3])
    assert METRICS["guess_rate"].value(found["mmmu_guess"]) == 0.25
    assert (len(SUBJECTS), len(set(SUBJECTS)), len(DISCIPLINES)) == (30, 30, 6)


def test_a_guess_is_of_the_sample_alone() -> None:
    drawn = [guess(f"validation_Art_{i}", 4) for i in range(400)]
    assert drawn == [guess(f"validation_Art_{i}", 4) for i in range(400)]
    assert all(80 <= drawn.count(k) <= 120 for k in range(4))


def test_a_right_no_is_not_the_worst_of_samples() -> None:
    sums = yes_no_statistics(["yes", "no", "no", "yes"], ["yes", "no", "yes", "no"], ["random"] * 4)
    assert list(METRICS["yes_no_f1_mean"].each(sums)) == list(METRICS["yes_no_f1"].each(sums)) == [1, 1, 0, 0]
