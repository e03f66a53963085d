"""Rules of scoring from a sweep to its table: one cell, several scores, and no inference for another rule."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from blip2sweep.analysis.draws import load_draws
from blip2sweep.commands.finish import check_all_done, finish
from blip2sweep.commands.rescore import Rescored, rescore
from blip2sweep.commands.run import Outcome, run_sweep
from blip2sweep.commands.run_one import run_single
from blip2sweep.commands.sweeps import retry
from blip2sweep.commands.table import show_table
from blip2sweep.errors import SweepFailed, UserError
from blip2sweep.planning.packs import sweep_jobs
from blip2sweep.reporting.table_asked import Asked
from blip2sweep.results import predictions as records
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.lines import sealed
from blip2sweep.results.score_folders import known_variants, scored_names
from blip2sweep.results.scoring import Scorer, score_result
from blip2sweep.results.sweeps import find_sweep
from blip2sweep.results.unscored import scored, unscored
from blip2sweep.running.local import run_local
from blip2sweep.wire.pack import TaskJob
from tests.outside.typed import ScoringHere, workers_here
from tests.toy import rules
from tests.toy.task import COLORS
from tests.toy_rules import asked, toy_rules

__all__ = ["toy_rules"]


class Scoring(ScoringHere):
    """Scores here, and counts as `rescore` does."""

    def __init__(self, output_dir: Path, minutes: float | None = None) -> None:
        super().__init__(output_dir, minutes)
        self.written: set[str] = set()

    def submit(self, key: str, name: str, task: TaskJob, baseline: str, control: str | None = None) -> None:
        super().submit(key, name, task, baseline, control)
        self.written |= {key} if self._service.written else set()


@pytest.fixture(autouse=True)
def _here(toy_rules: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("blip2sweep.commands.rescore.ScoringProcess", Scoring)
    monkeypatch.setattr("blip2sweep.reporting.dropoff.draw_dropoff", lambda *given: None)  # takes a second
    with workers_here():
        yield


def swept(folder: Path, name: str, *jobs: Sequence[str]) -> tuple[Outcome, pd.DataFrame]:
    """A sweep of these jobs: its outcome and its table, the baseline last."""
    own = asked(folder, *([*words, f"sweep_name={name}"] for words in jobs or ([],)))
    done = run_sweep(own, lambda plan, sweep, out: run_local([c.job() for c in plan.todo], sweep, out, 1))
    return done, table(folder, name)


def table(folder: Path, name: str) -> pd.DataFrame:
    rows = pd.read_parquet(folder / "sweeps" / name / "table.parquet")
    return rows.sort_values("part", key=lambda part: part == "none").reset_index(drop=True)


def results(folder: Path) -> int:
    return sum(len(a.results) for a in Ledger(folder).refresh().attempts.values())


@pytest.mark.thorough
def test_a_sweep_over_rules_is_one_cell_with_a_score_by_each(tmp_path: Path) -> None:
    outcome, rows = swept(tmp_path, "s", ["task.rule=strict"], ["task.rule=color"])
    assert outcome.plan.keys[0] == outcome.plan.keys[1]
    assert len(rows) == 2  # the cell and its baseline
    cell = rows.iloc[0]
    assert outcome.value(0) == cell["toy_right"]
    assert outcome.value(1) == cell["toy_right_color"]
    said = json.loads(next((tmp_path / "predictions").glob(f"{cell['key']}*")).read_text())["text"]
    assert outcome.value(1) == np.mean([text in COLORS for text in said])
    assert {f"{a}{m}{b}" for m in ("toy_right", "toy_right_color") for a, b in
            (("drop_", ""), ("drop_", "_low"), ("changed_", ""), ("baseline_", ""))} <= set(rows)  # fmt: skip
    assert rows["drop_toy_right_color"].notna().all()
    assert list(rows["main_metric"]) == ["toy_right"] * 2  # whose kind is not of this package
    assert find_sweep(tmp_path, "s").scoring[0]["variants"] == ["", "_color"]
    (task,) = {json.dumps(j["task"]) for j in sweep_jobs(tmp_path / "sweeps" / "s").values()}
    assert json.loads(task)["rule"] == ["strict", "color"]


@pytest.mark.thorough
@pytest.mark.parametrize("other", ["task.name=again", "task.main_metric=toy_half", "task.note=n", "task.data_dir={}/."])
def test_rules_of_one_cell_that_is_asked_for_under_two_names(tmp_path: Path, other: str) -> None:
    data = tmp_path.parent / f"{tmp_path.name}-data"
    outcome, rows = swept(tmp_path, "s", ["task.rule=color"], ["task.rule=strict", other.format(data)])
    assert len(rows) == 2
    assert not any(math.isnan(outcome.value(i)) for i in (0, 1))
    assert rows[["toy_right", "toy_right_color", "drop_toy_right", "drop_toy_right_color"]].notna().all(axis=None)
    sweep = find_sweep(tmp_path, "s")
    assert {tuple(sorted(asked["variants"])) for asked in sweep.asked().values()} == {("", "_color")}
    assert sweep.asked().keys() == {*sweep.keys}


@pytest.mark.thorough
def test_another_rule_scores_what_is_done_and_both_columns_survive(tmp_path: Path) -> None:
    _, first = swept(tmp_path, "first")
    computed, strict = results(tmp_path), first["toy_right"].tolist()
    before = {p: p.read_bytes() for p in (tmp_path / "scores").iterdir()}
    rules.SCORED.clear()

    outcome, second = swept(tmp_path, "second", ["task.rule=color"])
    assert results(tmp_path) == computed  # no inference
    assert rules.SCORED == ["color"] * 2  # and nothing was scored again
    assert outcome.value(0) == second["toy_right_color"][0]
    assert second["toy_right"].tolist() == strict
    assert second["drop_toy_right_color"].notna().all()
    assert list(second["main_metric"]) == ["toy_right_color"] * 2
    assert {p: p.read_bytes() for p in (tmp_path / "scores").iterdir()} == before

    finish(tmp_path, find_sweep(tmp_path, "first"))
    again = table(tmp_path, "first")
    assert list(again["main_metric"]) == ["toy_right"] * 2
    assert again["toy_right_color"].tolist() == second["toy_right_color"].tolist()
    assert rescore(tmp_path) == "scored 0 of 2 cells; the others were up to date"
    assert list(table(tmp_path, "second")["main_metric"]) == ["toy_right_color"] * 2


@pytest.mark.parametrize("order", [("color", "strict"), pytest.param(("strict", "color"), marks=pytest.mark.thorough)])
def test_trials_of_one_cell_by_several_rules(tmp_path: Path, order: tuple[str, str]) -> None:
    """A search launches one sweep many times; a trial's value is that of its own rule."""
    begun = set[Path]()

    def trial(rule: str) -> float:
        (job,) = asked(tmp_path, [f"task.rule={rule}", "sweep_name=s"])
        done = run_sweep([job], lambda plan, sweep, out: run_local([c.job() for c in plan.todo], sweep, out, 1), begun)
        return done.value(0)

    values = [trial(rule) for rule in order]
    assert not any(map(math.isnan, values))
    assert [trial(rule) for rule in order] == values
    sweep = find_sweep(tmp_path, "s")
    assert {variant: len(keys) for variant, keys in sweep.wanted().items()} == {"": 2, "_color": 2}
    assert scored(tmp_path, sweep)


@pytest.mark.thorough
def test_the_default_rule_of_what_another_rule_computed(tmp_path: Path) -> None:
    _, first = swept(tmp_path, "first", ["task.rule=color", "task.lemmatize=stem"])
    assert "toy_right" not in first
    assert not (tmp_path / "scores").exists()
    assert known_variants(tmp_path) == ["_color_stem"]
    outcome, second = swept(tmp_path, "second")
    assert results(tmp_path) == 2
    assert outcome.value(0) == second["toy_right"][0]
    assert list(second["main_metric"]) == ["toy_right"] * 2
    assert "scoring" not in json.loads((tmp_path / "sweeps/second/sweep.json").read_text())


def test_a_sweep_is_not_scored_while_a_variant_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept(tmp_path, "s", ["task.rule=[strict,color]"])
    sweep = find_sweep(tmp_path, "s")
    assert scored(tmp_path, sweep)
    next((tmp_path / "variants" / "color").iterdir()).unlink()
    assert len(scored_names(tmp_path)) == 2
    assert not scored(tmp_path, sweep)
    assert len(unscored(tmp_path, sweep)) == 1
    rules.SCORED.clear()
    finish(tmp_path, sweep)
    check_all_done(tmp_path, sweep)
    assert rules.SCORED == ["color"]
    assert table(tmp_path, "s")["toy_right_color"].notna().all()


@pytest.mark.thorough
def test_table_names_what_lacks_one_of_the_wanted_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept(tmp_path, "s", ["task.rule=[strict,color]"])
    swept(tmp_path, "strict")
    (gone,) = sorted((tmp_path / "variants" / "color").iterdir())[:1]
    gone.unlink()
    for name, every, told in (("s", False, True), (None, True, True), ("strict", False, False)):
        capsys.readouterr()
        show_table(tmp_path, name, every, Asked("csv"))
        said = f"1 of 2 cells is done and not scored, the first is {gone.name[:12]}"
        assert (said in capsys.readouterr().err) == told


def test_retry_fails_for_what_it_cannot_score_by_another_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cells that have no score file of the default rule, and one of earlier scorers of their own."""
    swept(tmp_path, "s", ["task.rule=color"])
    version = records.scorer_version
    monkeypatch.setattr(records, "scorer_version", lambda s: "9" if "right" in s else version(s))
    for journal in (tmp_path / "journals").iterdir():
        kept = [x for x in journal.read_bytes().splitlines() if b'"event":"measured"' not in x]
        lines = [{k: v for k, v in json.loads(x).items() if k not in ("n", "crc")} for x in kept]
        journal.write_bytes(b"".join(sealed(r, i) for i, r in enumerate(lines)))
    keys = {*find_sweep(tmp_path, "s").keys}
    failed = Rescored(failed={k: {"kind": "bad_config", "error": "gone", "traceback": ""} for k in keys})
    monkeypatch.setattr("blip2sweep.commands.rescore.score_results", lambda *given: failed)
    monkeypatch.setattr("blip2sweep.running.queue.submitter_lives", lambda submission: False)  # it is this process
    with pytest.raises(SweepFailed, match="2 of 2 cells are done and not scored"):
        retry(tmp_path, "s", None, False)


@pytest.mark.thorough
def test_rescore_asks_for_another_rule(tmp_path: Path) -> None:
    swept(tmp_path, "s")
    swept(tmp_path, "other", ["task.rule=color"])
    assert rescore(tmp_path, "s", ["task.rule=color,strict", "task.lemmatize=stem"]).startswith("scored 2 of 2 cells")
    assert find_sweep(tmp_path, "s").scoring[0]["variants"] == ["_color_stem", "_stem"]
    rows = table(tmp_path, "s")
    assert list(rows["main_metric"]) == ["toy_right_color_stem"] * 2
    assert {"toy_right", "toy_right_color", "toy_right_stem", "drop_toy_right_stem_low"} <= set(rows)
    rescore(tmp_path, "all", ["task.rule=strict", "task.lemmatize=none"])
    assert not find_sweep(tmp_path, "s").scoring
    assert list(table(tmp_path, "other")["main_metric"]) == ["toy_right"] * 2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("task.rule=blue", r"^task\.rule=blue: kind toy_rules does not score so; right: one or several of strict, color"),
        ("task.tokenizer=none", r"^--set task\.tokenizer=none: no cell has that scoring setting; right: task\.lemmatize, task"),
        ("rule=color", r"^--set rule=color: no scoring setting; right: such as task\.rule=lavis"),
        ("task.rule", r"^--set task\.rule: no scoring setting"),
    ],
)  # fmt: skip
def test_what_rescore_cannot_ask_for(tmp_path: Path, given: str, told: str) -> None:
    swept(tmp_path, "s")
    with pytest.raises(UserError, match=told):
        rescore(tmp_path, None, [given])
    assert not find_sweep(tmp_path, "s").scoring


def test_another_version_of_what_is_installed_scores_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept(tmp_path, "s", ["task.lemmatize=[none,stem]"])
    (name,) = {n for p in (tmp_path / "variants" / "stem").iterdir() for n in np.load(p).files if "right" in n}
    assert name == "toy_right_stem|1|stemmer 1.0"
    monkeypatch.setitem(rules.MODEL, "version", "2.0")
    rules.SCORED.clear()
    assert rescore(tmp_path).startswith("scored 2 of 2 cells")
    assert len(rules.SCORED) == 2  # the default variant does not depend on it
    assert rescore(tmp_path).startswith("scored 0 of 2")


@pytest.mark.thorough
def test_scores_of_two_versions_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cell was scored again with another version: it has no drop until its baseline has that version too."""
    outcome, first = swept(tmp_path, "s", ["task.lemmatize=[none,stem]"])
    sweep, rows = find_sweep(tmp_path, "s"), rules.rows
    assert first["drop_toy_right_stem"].notna().all()
    monkeypatch.setitem(rules.MODEL, "version", "2.0")
    monkeypatch.setattr(rules, "rows", lambda *given: rows(*given) * (0, 1, 0))
    (key,) = {*sweep.keys} - {*sweep.baselines}
    (name,) = (n for n in scored_names(tmp_path) if n.startswith(key))
    assert score_result(tmp_path, name, Scorer(outcome.plan.cells[key].task))

    cell, baseline = collect(tmp_path, sweep).set_index("key").loc[[key, *sweep.baselines]].to_dict("records")
    assert cell["toy_right_stem"] == 0
    assert math.isnan(cell["drop_toy_right_stem"])
    assert math.isnan(cell["baseline_toy_right_stem"])
    assert cell["drop_toy_right"] == first["drop_toy_right"][0]  # depends on nothing that is installed
    assert baseline["drop_toy_right_stem"] == 0
    samples = pd.read_parquet(tmp_path / "samples.parquet")
    assert (samples.loc[samples["key"] == key, "toy_right_stem"] == 0).all()
    assert load_draws(tmp_path, table(tmp_path, "s"), "toy_right_stem", resampled=False).arrays.keys() == {
        *sweep.baselines
    }

    monkeypatch.setattr("blip2sweep.running.queue.submitter_lives", lambda submission: False)  # it is this process
    rules.SCORED.clear()
    retry(tmp_path, "s", None, False)
    assert rules.SCORED == ["strict"]  # the baseline's
    assert (table(tmp_path, "s")["drop_toy_right_stem"] == 0).all()
    rules.SCORED.clear()
    retry(tmp_path, "s", None, False)
    assert not rules.SCORED


@pytest.mark.thorough
def test_the_same_command_scores_again_what_another_version_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept(tmp_path, "s", ["task.lemmatize=stem"])
    monkeypatch.setitem(rules.MODEL, "version", "2.0")
    rules.SCORED.clear()
    _, rows = swept(tmp_path, "t", ["task.lemmatize=stem"])
    assert len(rules.SCORED) == 2
    assert rows["drop_toy_right_stem"].notna().all()


@pytest.mark.thorough
def test_a_changed_scorer_scores_every_variant_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept(tmp_path, "s", ["task.rule=[strict,color]"])
    swept(tmp_path, "t", ["task.lemmatize=stem"])
    version = records.scorer_version
    monkeypatch.setattr(records, "scorer_version", lambda s: "9" if "right" in s else version(s))
    rules.SCORED.clear()
    assert rescore(tmp_path).startswith("scored 2 of 2 cells")
    assert sorted(rules.SCORED) == ["color"] * 2 + ["strict"] * 4


def test_a_launcher_of_others_scores_by_its_own_rule(tmp_path: Path) -> None:
    """Its job knows of no sweep."""
    swept(tmp_path, "s")
    (job,) = asked(tmp_path, ["task.rule=color"])
    value = run_single(dict(job.config))
    assert results(tmp_path) == 2
    assert not math.isnan(value)
    assert len(scored_names(tmp_path, "_color")) == 2
