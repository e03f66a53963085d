"""GQA's scores against values of the official eval.py, of LLaVA's, LAVIS's and lmms-eval's rules, and hand-made cases.

gqa_golden.json holds 120 odd answers with what those programs said, run once outside of this project; its `source` names
them. On 104,037 odd answers there was no difference.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blip2sweep.metrics import METRICS, images, paired_drop
from blip2sweep.metrics.gqa import ANY_ATTRIBUTE, PLAIN, RULES, STEPS, Asked, GqaScorer, statistics_of, steps_of
from blip2sweep.metrics.gqa import METRICS as OWN

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "gqa_golden.json").read_text())


def golden() -> dict[int | str, Asked]:
    found: dict[int | str, Asked] = {}
    for own, row in GOLDEN["questions"].items():
        common = "Common" in row["types"]["detailed"]
        valid, plausible = (
            frozenset(ANY_ATTRIBUTE if common else GOLDEN["choices"][own][k]) for k in ("valid", "plausible")
        )
        types = row["types"]["structural"], row["types"]["semantic"], steps_of(row["semantic"])
        more = row["groups"]["global"], tuple(row["entailed"]), row["isBalanced"], valid, plausible
        found[own] = Asked(row["answer"], *types, *more)
    return found


def values(asked: dict[int | str, Asked], said: dict[int | str, str], rule: str = "official") -> dict[str, float]:
    statistics = GqaScorer(asked, rule).statistics(list(said), list(said.values()))
    return {m.name[4:]: m.value(statistics[m.statistic]) for m in PLAIN if m.statistic in statistics}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_says_what_its_own_code_says(rule: str) -> None:
    said = GOLDEN["said"]
    asked = {own: replace(q, balanced=True) for own, q in golden().items()}
    right = GqaScorer(asked, rule).statistics(list(said), list(said.values()))["gqa"][:, 0]
    assert right.tolist() == GOLDEN["expected"][rule]["right"]


@pytest.mark.parametrize("rule", ["official", "lavis", "llava"])
def test_all_values_are_those_of_eval_py(rule: str) -> None:
    found, expected = values(golden(), GOLDEN["said"], rule), GOLDEN["expected"][rule]["values"]
    listed = {k: v for k, v in expected.items() if k != "odd" and k not in ("steps_0", "steps_10")}
    for name, value in listed.items():
        assert found[name] == pytest.approx(value / (1 if name == "distribution" else 100), abs=1e-12), name
    assert {k for k, v in found.items() if math.isfinite(v)} == listed.keys()


# ---- hand-made cases, with the values that eval.py gives


def question(answer: str = "red", structural: str = "query", **more: Any) -> Asked:
    return Asked(answer, structural, "attr", **more)


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("t-shirt", (1, 1, 1, 1)),
        ("T-shirt.", (0, 1, 1, 1)),
        ("t-shirt .", (0, 1, 0, 0)),
        ("tshirt", (0, 0, 0, 1)),
        ("t shirt", (0, 1, 0, 0)),
        ("the t-shirt", (0, 1, 0, 0)),
        (" t-shirt", (0, 1, 0, 0)),
        ("", (0, 0, 0, 0)),
    ],
)
def test_the_rules_differ_as_they_should(said: str, right: tuple[int, ...]) -> None:
    assert tuple(values({1: question("t-shirt")}, {1: said}, rule)["accuracy"] for rule in RULES) == right


def test_a_question_is_binary_unless_its_structure_is_query() -> None:
    asked = {i: question("yes", s) for i, s in enumerate(("verify", "query", "choose", "logical", "compare", "new"))}
    found = values(asked, {0: "yes", 1: "no", 2: "yes", 3: "no", 4: "yes", 5: "no"})
    assert (found["accuracy"], found["binary"], found["open"]) == (3 / 6, 3 / 5, 0)
    assert [found[s] for s in ("verify", "query", "choose", "logical", "compare")] == [1, 0, 1, 0, 1]


def test_consistency_is_of_correct_questions_alone() -> None:
    asked = {
        "a": question(entailed=("a", "b", "c")), "b": question(balanced=False), "c": question(balanced=False),
        "d": question(entailed=("a",)), "e": question(entailed=("e",)),
    }  # fmt: skip
    said: dict[int | str, str] = {"a": "red", "b": "red", "c": "blue", "d": "blue", "e": "red"}
    found = values(asked, said)
    assert found["consistency"] == 1 / 2  # of a: b is right and c is wrong; d is wrong itself; e entails only itself
    assert found["accuracy"] == 2 / 3  # a, d and e
    assert values(asked, {**said, "d": "red"})["consistency"] == (1 / 2 + 1) / 2


def test_the_distribution_weighs_each_group_by_its_questions() -> None:
    groups = ["color"] * 4 + ["animal"] * 2 + [None]
    gold = ["red", "red", "red", "blue", "cat", "cat", "x"]
    asked: dict[int | str, Asked] = {i: question(a, group=g) for i, (a, g) in enumerate(zip(gold, groups, strict=True))}
    said: dict[int | str, str] = dict(enumerate(["red", "blue", "blue", "green", "cat", "dog", "y"]))
    color = (1 - 3) ** 2 / 3 + (2 - 1) ** 2 / 1
    assert values(asked, said)["distribution"] == pytest.approx((4 * color + 2 * (1 - 2) ** 2 / 2) / 6 / 100)
    assert values(asked, {i: q.answer for i, q in asked.items()})["distribution"] == 0


def test_what_is_not_there_is_absent() -> None:
    """Of testdev_balanced: entailed questions that are not in it, and no choices file. Nothing is 0 instead."""
    asked: dict[int | str, Asked] = {1: question(entailed=(2,)), 3: question()}
    assert statistics_of(asked) == {"gqa"}
    assert (
        values(asked, {1: "red", 3: "red"})
        .keys()
        .isdisjoint({"consistency", "validity", "plausibility", "distribution"})
    )


def test_validity_and_plausibility() -> None:
    listed = {"valid": frozenset({"red", "blue"}), "plausible": frozenset({"red"})}
    asked: dict[int | str, Asked] = {i: question(**listed) for i in range(3)}
    found = values(asked, {0: "red", 1: "blue", 2: "Blue."})
    assert (found["validity"], found["plausibility"]) == (2 / 3, 1 / 3)
    assert values(asked, {0: "red", 1: "blue", 2: "Blue."}, "lmms")["validity"] == 1


@pytest.mark.parametrize(
    ("program", "steps"),
    [
        ([("select", "dog (1)"), ("query", "name")], 1),
        ([("select", "dog (1)"), ("relate", "cat,on,o (2)"), ("exist", "?")], 2),
        ([("select", "scene"), ("choose name", "a|b")], 1),
        ([("select", "scene"), ("query", "color")], 2),
    ],
)
def test_steps_leave_the_last_query_out(program: list[tuple[str, str]], steps: int) -> None:
    assert steps_of([{"operation": o, "argument": a} for o, a in program]) == steps


# ---- as metrics


def test_the_drop_of_consistency_counts_what_only_one_side_got_right() -> None:
    base, cell = (
        np.array(rows, dtype=np.float64)
        for rows in ([[1, 1], [0.5, 1], [0, 0], [0, 0]], [[1, 1], [0.5, 1], [0, 1], [0, 1]])
    )
    drop = paired_drop(METRICS["gqa_consistency"], base, cell, images(range(4)))
    assert drop.drop == pytest.approx(0.75 - 0.375)


def test_intervals_of_sums_and_none_of_the_distribution() -> None:
    asked: dict[int | str, Asked] = {i: question(group="color", entailed=(i ^ 1,)) for i in range(400)}
    ids, rng = list(asked), np.random.default_rng(0)
    base, cell = (
        GqaScorer(asked).statistics(ids, ["red" if rng.random() < p else "blue" for _ in ids]) for p in (0.9, 0.5)
    )
    grouped = images([i // 2 for i in range(400)])
    for name in ("gqa_accuracy", "gqa_consistency"):
        statistic = METRICS[name].statistic
        drop = paired_drop(METRICS[name], base[statistic], cell[statistic], grouped)
        assert 0.2 < drop.low < drop.drop < drop.high < 0.6, name
    drop = paired_drop(METRICS["gqa_distribution"], base["gqa_distribution"], cell["gqa_distribution"], grouped)
    assert drop.drop > 0
    assert math.isnan(drop.low)
    assert math.isnan(drop.high)


def test_a_drop_of_consistency_counts_what_only_the_cell_has_right() -> None:
    """The questions that consistency is about are those that a model answers correctly: another cell, other questions."""
    asked: dict[int | str, Asked] = {i: question(entailed=(i ^ 1,)) for i in range(80)}
    ids = list(asked)
    base, cell = (
        GqaScorer(asked).statistics(ids, ["red" if i % 8 in right else "blue" for i in range(80)])["gqa_consistency"]
        for right in ((0, 1, 2), (4, 6))
    )
    metric, grouped = METRICS["gqa_consistency"], images([i // 2 for i in range(80)])
    drop = paired_drop(metric, base, cell, grouped)
    assert drop.drop == pytest.approx(metric.value(base) - metric.value(cell))
    few = paired_drop(metric, base[:8], cell[:8], images([i // 2 for i in range(8)]))
    assert few.drop == pytest.approx(metric.value(base[:8]) - metric.value(cell[:8]))
    assert few.low < few.drop < few.high


def test_each_rule_has_columns_of_its_own() -> None:
    names = [m.name for m in OWN]
    assert len(names) == len(RULES) * len(PLAIN) == len(set(names))
    assert {"gqa_accuracy", "gqa_accuracy_lavis", "gqa_consistency_llava", f"gqa_steps_{STEPS[-1]}_lmms"} <= {*names}
    assert METRICS["gqa_accuracy_lavis"].statistic == "gqa_lavis"
