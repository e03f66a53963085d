"""Versions in turn: what pairs of whole runs say, and whether two versions said the same."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks import models, pairs, turns, versions
from scripts.benchmarks.ours import Setting
from scripts.benchmarks.pairs import BEFORE, NOW, order, ratio, same
from tests.checkpoints import ROOT


def test_sides_run_in_turn() -> None:
    assert order(3) == [BEFORE, NOW, NOW, BEFORE, BEFORE, NOW]


def test_the_interval_is_students_of_the_logarithms() -> None:
    """Of .1 and .3: mean .2, standard deviation .1414, of the mean .1; Student's 97.5 % with one degree is 12.706."""
    found = ratio([math.exp(0.1), math.exp(0.3)], [1.0, 1.0])
    assert found.median == pytest.approx(math.exp(0.2))
    assert (found.low, found.high) == pytest.approx((math.exp(0.2 - 1.2706), math.exp(0.2 + 1.2706)), rel=1e-4)


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        ([12.0, 12.1, 11.9], [10.0, 10.0, 10.0], "faster"),
        ([10.0, 10.0, 10.0], [12.0, 12.1, 11.9], "slower"),
        ([12.0, 9.0, 12.5], [10.0, 10.0, 10.0], "within the noise"),
        ([12.0], [10.0], "one pair: no interval, so no claim"),
    ],
)
def test_a_gain_inside_the_noise_is_not_claimed(before: list[float], now: list[float], verdict: str) -> None:
    assert ratio(before, now).verdict == verdict


def said(texts: str, nll: list[float | None], recipe: str = "none", first: int = 0) -> dict[str, Any]:
    return {recipe: {"id": list(range(first, first + len(texts))), "text": list(texts), "nll_sum": nll}}


def test_what_both_versions_said_of_a_sample_is_compared() -> None:
    before = said("abc", [1.0, 200.0, None])
    assert same(before, said("abc", [1.0, 200.001, None])) == (3, 0, pytest.approx(5e-6), 0)
    assert not same(before, said("abc", [1.0, 200.001, None])).wrong
    assert not same(before, said("abc", [1.00002, 200.0, None])).wrong  # a picture was read once for its questions
    assert same(before, said("abc", [1.0001, 200.0, None])).wrong
    assert same(before, said("abx", [1.0, 200.0, None])).differing == 1
    assert same(before, said("abc", [1.1, 200.0, None])).wrong
    assert same(before, said("abc", [1.0, 200.0, 3.0])).nll == math.inf
    assert same(before, said("bc", [200.0, None], first=1)).texts == 2  # a cell that stopped early
    assert same(before, said("abc", [1.0, 200.0, None], recipe="other")) == (0, 0, 0.0, 2)


@pytest.mark.parametrize(
    ("dtype", "now", "wrong"),
    [
        ("float32", said("a", [1.0]), None),
        ("float32", said("b", [1.0]), "1 of 1 texts differ in float32"),
        ("float32", said("a", [1.00012]), "0 of 1 texts differ in float32; likelihoods by 1.2e-04, at most 5e-05"),
        ("bfloat16", said("b", [1.0]), None),
        ("bfloat16", said("a", [1.0], recipe="other"), "2 cells are of one version alone"),
    ],
)
def test_what_differs_is_an_error_in_float32(dtype: str, now: dict[str, Any], wrong: str | None) -> None:
    found = versions.disagreement(dtype, same(said("a", [1.0]), now))
    assert (found or "").startswith(wrong or "")
    assert (found is None) == (wrong is None)


def whole(seconds: float, greedy: float, likelihood: float) -> dict[str, Any]:
    rows = {"greedy": {"seconds": greedy, "cpu": greedy}, "likelihood": {"seconds": likelihood, "cpu": likelihood}}
    rows["images"] = {"seconds": 0.001, "cpu": 0.001}
    return {
        "seconds": seconds, "cpu_seconds": seconds, "cells": 64, "asked_images": 1.0,
        "stages": {"by": "cpu", "threads": 1, "rows": rows}, "said": said("a", [1.0]),
    }  # fmt: skip


def test_whole_runs_and_their_stages_are_compared_pair_by_pair() -> None:
    given = Setting(models.model_config("tiny"), {}, "cpu", 6, False, Path())
    args = argparse.Namespace(model="tiny", grid="card", task="caption", pairs=3)
    runs = {
        BEFORE: [whole(12.0, 6.0, 3.0), whole(12.1, 6.0, 4.0), whole(11.9, 6.1, 3.5)],
        NOW: [whole(10.0, 4.0, 3.5), whole(10.1, 4.0, 3.0), whole(9.9, 4.0, 4.0)],
    }
    found = versions.found(args, given, runs)
    assert found["seconds"]["median"] == pytest.approx(1.2, rel=0.01)
    assert {name: row["verdict"] for name, row in found["by_stage"].items()} == {
        "greedy": "faster", "likelihood": "within the noise"
    }  # fmt: skip
    told = list(versions.lines(found))
    assert told[1].startswith(
        "  seconds               12.00 before,    10.00 now: median 1.20 (95 % interval 1.20 to 1.20"
    )
    assert told[1].endswith("): faster")
    assert any("0 of 1 texts differ" in line for line in told)


def test_each_run_has_its_own_cells_of_the_reference() -> None:
    theirs = [{"seconds_per_cell": 16.0, "cpu_per_cell": 20.0}, {"seconds_per_cell": 18.0, "cpu_per_cell": 20.0}]
    mine = [{"cells": 10, "seconds": 5.0, "cpu_seconds": 10.0}] * 2
    found = turns.ratios(theirs, mine)
    assert found["ratio"]["each"] == [32.0, 36.0]
    assert found["cpu_ratio"]["median"] == pytest.approx(20.0)
    assert list(turns.spread(range(64), 3)) == [0, 21, 42]  # type: ignore[arg-type]


def test_a_version_runs_from_a_copy_of_its_own(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for folder in ("blip2sweep/__pycache__", "conf"):
        (checkout / folder).mkdir(parents=True)
    (checkout / "blip2sweep" / "__init__.py").write_text("")
    made = pairs.tree(checkout, tmp_path / "made")
    assert (made / "scripts" / "benchmarks" / "side.py").is_file()
    assert (made / "blip2sweep" / "conf").resolve() == made / "conf"
    assert not list((checkout / "blip2sweep" / "__pycache__").iterdir())  # nothing is written where it came from


@pytest.mark.thorough
def test_a_version_against_itself_says_the_same(tmp_path: Path) -> None:
    words = f"--against {ROOT} --task vqa --images 2 --cells 1 --pairs 1 --json".split()
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "scripts/benchmark.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["same"] == {"texts": 12, "differing": 0, "nll": 0.0, "missing": 0}
    assert found["seconds"]["verdict"].startswith("one pair")
    assert {"begin", "greedy", "likelihood", "vision", "scoring"} <= found["stages"]["rows"].keys()
