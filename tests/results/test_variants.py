"""Score files of variants: each is written alone, so that none is lost; and what is measured from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.metrics.statistics import CORE, METRICS, Metric
from blip2sweep.results.drops import source
from blip2sweep.results.predictions import read_scores, read_statistics, stem, write_predictions
from blip2sweep.results.score_folders import listed_variants, scored_names, variants_of
from blip2sweep.results.scored import SCORERS, Scored, is_todays, scorers
from blip2sweep.results.scoring import Scorer, score_result
from blip2sweep.results.unscored import is_scored
from blip2sweep.tasks import TaskData, load_task, planned_task
from blip2sweep.tasks.settings import BASE
from blip2sweep.wire.lines import Measured
from tests.results.test_scoring import predictions
from tests.toy import rules
from tests.toy.task import write
from tests.toy_rules import planned, toy_rules

__all__ = ["toy_rules"]
pytestmark = pytest.mark.usefixtures("toy_rules")


def section(root: Path, **settings: Any) -> dict[str, Any]:
    base = {"name": "t", "kind": "toy_rules", "format": "toy_rules", "data_dir": str(root), "split": "test"}
    return {**base, "main_metric": "toy_right", **settings}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return write(tmp_path / "data")


def said(output_dir: Path, task: TaskData, name: str = "a" * 12) -> str:
    found = predictions(task.samples)
    write_predictions(output_dir, written := stem(name, found.hash), found)
    return written


def test_each_variant_has_a_file_with_what_all_share(tmp_path: Path, data: Path) -> None:
    task = load_task(section(data, rule=["color", "strict"]))
    name = said(tmp_path, task)
    assert score_result(tmp_path, name, Scorer(task))
    assert variants_of(tmp_path, name) == ["", "_color"]
    assert listed_variants(tmp_path) == {name: ["", "_color"]}
    assert scored_names(tmp_path) == scored_names(tmp_path, "_color") == {name}
    assert read_statistics(tmp_path, name).keys() == {"health", "nll", "toy_right", "toy_right_color"}
    (tmp_path / "scores" / f"{name}.npz").unlink()
    assert read_statistics(tmp_path, name).keys() == {"health", "nll", "toy_right_color"}
    assert listed_variants(tmp_path) == {name: ["_color"]}


def test_processes_that_score_by_different_rules_at_once_lose_nothing(tmp_path: Path, data: Path) -> None:
    tasks = [load_task(section(data, rule=r, lemmatize=w)) for r in ("strict", "color") for w in ("none", "stem")]
    names = [said(tmp_path, tasks[0], f"{i:012x}") for i in range(8)]
    scorers_ = [Scorer(task) for task in tasks]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: score_result(tmp_path, *one), [(n, s) for n in names for s in scorers_]))
    for name in names:
        statistics, current = read_scores(tmp_path, name)
        assert current
        own = {f"toy_right{v}" for v in ("", "_color", "_stem", "_color_stem")}
        assert own | {"health", "nll"} == statistics.keys()


def test_a_broken_file_of_one_variant_costs_that_one(tmp_path: Path, data: Path) -> None:
    task = load_task(section(data, rule=["strict", "color"]))
    name = said(tmp_path, task)
    score_result(tmp_path, name, Scorer(task))
    (tmp_path / "variants" / "color" / f"{name}.npz").write_bytes(b"cut")
    statistics, current = read_scores(tmp_path, name)
    assert "toy_right" in statistics
    assert not current
    assert scored_names(tmp_path, "_color") == set()
    assert score_result(tmp_path, name, Scorer(task))
    assert read_scores(tmp_path, name)[1]


def test_a_pack_of_an_earlier_version_is_scored_by_the_default_rule(tmp_path: Path) -> None:
    (cell, *_) = planned(tmp_path / "out", ["task.rule=color"]).cells.values()
    task = {name: value for name, value in cell.job()["task"].items() if name in BASE}
    name = said(tmp_path, found := planned_task(task))
    assert not is_scored(tmp_path, name, task)
    assert score_result(tmp_path, name, Scorer(found))
    assert is_scored(tmp_path, name, task)
    assert not is_scored(tmp_path, name, cell.job()["task"])
    assert variants_of(tmp_path, name) == []


def test_what_a_measurement_is_made_from_names_the_variants_of_both(tmp_path: Path) -> None:
    baseline: Any = {"key": "b", "predictions": "f" * 64, "columns": {"baseline": "b"}}

    def made(variants: Mapping[str, list[str]]) -> str:
        return source("a-1", {}, baseline, lambda name: variants.get(name, []))

    plain, both = made({}), made({"a-1": ["", "_color"], "b-ffffffffffff": ["", "_color"]})
    assert len({plain, both, made({"a-1": ["", "_color"]}), made({"a-1": ["_color"]})}) == 4
    assert both.startswith(plain + " ")


def line(scored: str, metrics: Sequence[str], **installed: str) -> Measured:
    found: Measured = {"scored": scored, "samples": 1, "noise": {}, "metrics": {m: [0.5] for m in metrics}}
    return {**found, "installed": installed} if installed else found


def test_what_is_installed_is_part_of_what_a_cell_is_scored_by(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load_task(section(data, lemmatize=["none", "stem"]))
    found, name = [], said(tmp_path, task)
    for version in ("1.0", "2.0"):
        monkeypatch.setitem(rules.MODEL, "version", version)
        assert score_result(tmp_path, name, Scorer(task))
        found.append(Scored(tmp_path, name))
    one, other = found
    assert one.installed == {"toy_right_stem": "stemmer 1.0"}
    assert one.scored != other.scored
    assert {m.name for m in one.metrics} - {m.name for m in one.comparable(other)} == {
        "toy_right_stem",
        "toy_half_stem",
    }
    names = [m.name for m in one.metrics]
    assert is_todays(line(one.scored, names, **one.installed))
    assert not is_todays(line(one.scored, names, **other.installed))


def test_a_new_metric_of_the_package_measures_nothing_again(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And another version of one concerns the cells that have it."""
    task = load_task(section(data))
    score_result(tmp_path, name := said(tmp_path, task), Scorer(task))
    before = Scored(tmp_path, name)
    digest, names = before.scored, [m.name for m in before.metrics]
    assert is_todays(line(digest, names))
    new = Metric("new", "new", lambda sums: sums[..., 0], True, "1")
    monkeypatch.setitem(METRICS, "new", new)
    assert Scored(tmp_path, name).scored == digest
    assert "new" not in CORE
    assert scorers([], []) == scorers([METRICS["cider"]], [])  # one digest has all of the core
    assert SCORERS == "bb804719"  # of measurements there are: another one measures every cell again
    assert is_todays(line("of whoever has it", ["a metric of code that is not here"]))
    assert not is_todays(line("other", names))
