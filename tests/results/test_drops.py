"""Who measures a cell makes no difference to the table: its worker's scorer at once, or whoever makes tables later."""

from __future__ import annotations

import errno
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from blip2sweep.console.remarks import forget as forget_remarks
from blip2sweep.errors import UserError
from blip2sweep.files import write_atomic
from blip2sweep.metrics import METRICS, images, paired_drop
from blip2sweep.results import drop_writer as drop_writer_module
from blip2sweep.results import predictions as records
from blip2sweep.results.collect import collect
from blip2sweep.results.drop_writer import DropWriter
from blip2sweep.results.drops import Baseline, measure
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.predictions import (
    read_statistics,
    scorer_version,
    second_run,
    stem,
    write_predictions,
    write_statistics,
)
from blip2sweep.results.score_folders import scored_names
from blip2sweep.results.scored import SCORERS, Scored
from blip2sweep.tasks.predictions import Predictions
from tests.results.test_scoring_process import jobs, run
from tests.synthetic import build, entry, whole

N = 40


def result(output_dir: Path, journal: Journal, key: str, baseline: str, seed: int, scored: bool = True) -> str:
    """Commit a made-up cell; its name."""
    rng = np.random.default_rng(seed)
    ids, nothing = list(range(N)), [None] * N
    said = Predictions(ids, [i // 2 for i in ids], [str(rng.integers(2)) for _ in ids], [1] * N, nothing, [0] * N)
    name = stem(key, said.hash)
    write_predictions(output_dir, name, said)
    if scored:
        score(output_dir, name, seed)
    columns = {
        "model": "m",
        "dtype": "float32",
        "part": "none" if key == baseline else "vit",
        "semantics": 1,
        "recipe_json": "[]",
        "baseline": baseline,
    }
    journal.write("result", key=key, predictions=said.hash, columns=columns)
    return name


def score(output_dir: Path, name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    statistics = {"vqa": rng.integers(0, 2, (N, 10)).astype(float) + [0, 1] * 5, "nll": rng.random((N, 2)) + 1}
    write_statistics(output_dir, name, statistics)


def measured(output_dir: Path) -> list[str]:
    """Keys of the lines, in no order."""
    lines = [json.loads(x) for p in (output_dir / "journals").iterdir() for x in p.read_text().splitlines()]
    return sorted(x["key"] for x in lines if x["event"] == "measured")


def tables(output_dir: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    table = collect(output_dir)
    samples = pd.read_parquet(output_dir / "samples.parquet").sort_values(["key", "id"]).reset_index(drop=True)
    return table, samples


def forget(output_dir: Path) -> None:
    """As if no worker had measured anything, nor kept samples."""
    for path in (output_dir / "journals").iterdir():
        kept = [x for x in path.read_text().splitlines(keepends=True) if not x.startswith('{"event":"measured"')]
        path.write_text("".join(kept))
    shutil.rmtree(output_dir / "samples.parquet")
    (output_dir / "table.parquet").unlink()


@pytest.mark.thorough
@pytest.mark.parametrize("task", ["shapes_caption", "shapes_vqa"])
def test_workers_measure_what_makers_of_tables_would(tmp_path: Path, task: str) -> None:
    assert run(jobs(f"task={task}", "quant.bits=2,4"), tmp_path) == 0
    lines = measured(tmp_path)
    assert len(lines) == 3
    assert len(list((tmp_path / ".samples").iterdir())) == 1  # and the samples are there, to be shown
    table, samples = tables(tmp_path)
    assert measured(tmp_path) == lines  # nothing was left to do
    forget(tmp_path)
    again, samples_again = tables(tmp_path)
    assert measured(tmp_path) == lines
    pd.testing.assert_frame_equal(table, again)
    pd.testing.assert_frame_equal(samples, samples_again)
    assert table["drop_nll_low"].notna().all()


def test_a_cell_waits_for_its_baseline_whoever_scores_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drop_writer_module, "LOOK_SECONDS", 0)
    journal, drop_writer = Journal(tmp_path), DropWriter(tmp_path)
    first = result(tmp_path, journal, "a" * 12, "b" * 12, 1)
    drop_writer.add(first, "b" * 12)
    drop_writer.retry_waiting()
    assert measured(tmp_path) == []
    base = result(tmp_path, journal, "b" * 12, "b" * 12, 0, scored=False)
    drop_writer.retry_waiting()
    assert measured(tmp_path) == []
    score(tmp_path, base, 0)  # by another process
    drop_writer.retry_waiting()
    assert measured(tmp_path) == ["a" * 12]
    drop_writer.add(result(tmp_path, journal, "c" * 12, "b" * 12, 2), "b" * 12)
    assert measured(tmp_path) == ["a" * 12, "c" * 12]
    drop_writer.close()
    assert len(list((tmp_path / ".samples").iterdir())) == 1
    table = collect(tmp_path).set_index("key")
    assert table["drop_vqa_accuracy_low"].notna().all()
    assert measured(tmp_path) == ["a" * 12, "b" * 12, "c" * 12]


def test_a_baseline_that_is_computed_again_has_its_cells_measured_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    result(tmp_path, journal, "b" * 12, "b" * 12, 0)
    result(tmp_path, journal, "a" * 12, "b" * 12, 1)
    before = collect(tmp_path).set_index("key")
    result(tmp_path, journal, "b" * 12, "b" * 12, 5)
    after = collect(tmp_path).set_index("key")
    assert before.loc["a" * 12, "vqa_accuracy"] == after.loc["a" * 12, "vqa_accuracy"]
    assert before.loc["a" * 12, "drop_vqa_accuracy"] != after.loc["a" * 12, "drop_vqa_accuracy"]
    assert after.loc["a" * 12, "baseline_vqa_accuracy"] == after.loc["b" * 12, "vqa_accuracy"]
    assert len(pd.read_parquet(tmp_path / "samples.parquet")) == 2 * N


def test_lines_of_another_rule_for_intervals_are_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier version wrote, without `images` and with other ends, is not shown; scores and samples stay as they are."""
    journal = Journal(tmp_path)
    for i, k in enumerate("ba"):
        result(tmp_path, journal, k * 12, "b" * 12, i)

    def earlier(cell: Scored, baseline: Baseline | None, control: Baseline | None = None) -> dict[str, Any]:
        found = measure(cell, baseline, control)
        metrics = {m: [*v[:3], v[2], v[2]] for m, v in found["metrics"].items()}
        return {k: v for k, v in found.items() if k != "images"} | {"metrics": metrics}

    with monkeypatch.context() as before:
        before.setattr("blip2sweep.results.drops.MEASURES", SCORERS)
        before.setattr("blip2sweep.results.collector.measure", earlier)
        before.setattr("blip2sweep.results.drop_columns.columns", lambda found: {})
        collect(tmp_path)
    parts = {p.name for p in (tmp_path / "samples.parquet").iterdir()}
    assert len(measured(tmp_path)) == 2
    table = collect(tmp_path).set_index("key").loc["a" * 12]
    assert len(measured(tmp_path)) == 4
    assert table["drop_nll_low"] < table["drop_nll"] < table["drop_nll_high"]
    assert (table["images"], table["scored_samples"]) == (N // 2, N)
    assert {p.name for p in (tmp_path / "samples.parquet").iterdir()} == parts


def test_the_table_has_the_formula_of_the_package(tmp_path: Path) -> None:
    """One formula: `metrics.paired_drop` of the statistics on disk is what a table shows, whatever the metric."""
    journal = Journal(tmp_path)
    names = {k: result(tmp_path, journal, k * 12, "b" * 12, i) for i, k in enumerate("ba")}
    row = collect(tmp_path).set_index("key").loc["a" * 12]
    base, cell = (read_statistics(tmp_path, names[k]) for k in "ba")
    for metric in (m for m in METRICS.values() if m.statistic in cell):
        found = paired_drop(metric, base[metric.statistic], cell[metric.statistic], images([i // 2 for i in range(N)]))
        assert [row[f"drop_{metric.name}{end}"] for end in ("", "_low", "_high")] == pytest.approx(list(found))
        lost = row[f"baseline_{metric.name}"] - row[metric.name]
        assert found.drop == pytest.approx(-lost if metric.name == "nll" else lost)


def test_what_is_not_scored_is_not_kept_as_measured(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    base = result(tmp_path, journal, "b" * 12, "b" * 12, 0, scored=False)
    result(tmp_path, journal, "a" * 12, "b" * 12, 1)
    assert "drop_vqa_accuracy" not in collect(tmp_path)
    assert measured(tmp_path) == []
    score(tmp_path, base, 0)
    assert collect(tmp_path)["drop_vqa_accuracy"].notna().all()
    assert measured(tmp_path) == ["a" * 12, "b" * 12]


def test_scores_of_an_earlier_version_are_not_kept_as_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A roll-up between an upgrade and `rescore` shows what there is, and remembers nothing of it."""
    journal = Journal(tmp_path)
    with monkeypatch.context() as before:
        before.setattr(records, "scorer_version", lambda name: "0" if name == "vqa" else scorer_version(name))
        names = [result(tmp_path, journal, k * 12, "b" * 12, i) for i, k in enumerate("ba")]
    table = collect(tmp_path)
    assert "vqa_accuracy" not in table
    assert table["drop_nll"].notna().all()
    assert measured(tmp_path) == []
    for i, name in enumerate(names):
        score(tmp_path, name, i)
    assert collect(tmp_path)["drop_vqa_accuracy"].notna().all()
    assert pd.read_parquet(tmp_path / "samples.parquet")["vqa_accuracy"].notna().all()
    assert len(measured(tmp_path)) == 2


def test_scores_that_became_more_are_measured_anew(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    names = [result(tmp_path, journal, k * 12, "b" * 12, i, scored=False) for i, k in enumerate("ba")]
    for name in names:
        write_statistics(tmp_path, name, {"nll": np.ones((N, 2))})
    assert "vqa_accuracy" not in collect(tmp_path)
    for i, name in enumerate(names):
        score(tmp_path, name, i)
    assert "vqa_accuracy" not in collect(tmp_path)  # nobody said so: no file of a measured cell is opened
    table = collect(tmp_path, rescored=["b" * 12])  # a baseline concerns all its cells
    assert table["drop_vqa_accuracy"].notna().all()
    assert collect(tmp_path).equals(table)


def test_a_cell_without_samples_has_no_metrics_and_harms_no_other(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    result(tmp_path, journal, "b" * 12, "b" * 12, 0)
    nothing = Predictions([], [], [], [], [], [])
    write_predictions(tmp_path, name := stem("a" * 12, nothing.hash), nothing)
    write_statistics(tmp_path, name, {"vqa": np.zeros((0, 10))})
    columns = {"part": "vit", "dtype": "float32", "semantics": 1, "recipe_json": "[]", "baseline": "b" * 12}
    journal.write("result", key="a" * 12, predictions=nothing.hash, columns=columns)
    table = collect(tmp_path).set_index("key")
    assert np.isnan(table.loc["a" * 12, "vqa_accuracy"])
    assert table.loc["b" * 12, "drop_vqa_accuracy"] == 0


def test_one_cell_that_cannot_be_read_takes_no_other_with_it(tmp_path: Path) -> None:
    journal, drop_writer = Journal(tmp_path), DropWriter(tmp_path)
    names = {k: result(tmp_path, journal, k * 12, "b" * 12, i) for i, k in enumerate("acd", 1)}
    for name in names.values():
        drop_writer.add(name, "b" * 12)
    result(tmp_path, journal, "b" * 12, "b" * 12, 0)
    (tmp_path / "predictions" / f"{names['c']}.json").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        drop_writer.close()
    assert measured(tmp_path) == ["a" * 12, "d" * 12]
    assert len(list((tmp_path / ".samples").iterdir())) == 1


def test_a_baseline_that_is_not_there_is_not_looked_for_at_every_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, drop_writer, looks = Journal(tmp_path), DropWriter(tmp_path), []
    refresh = Ledger.refresh
    monkeypatch.setattr(Ledger, "refresh", lambda ledger: (looks.append(1), refresh(ledger))[1])
    for i in range(20):
        drop_writer.add(result(tmp_path, journal, f"{i:012x}", "b" * 12, i), "b" * 12)
        drop_writer.retry_waiting()
    assert len(looks) == 1


def test_a_ledger_that_was_read_before_goes_on_reading(tmp_path: Path) -> None:
    """What makers of tables measure is in the ledger at hand, and comes again from the journal."""
    journal = Journal(tmp_path)
    for i, key in enumerate("ba"):
        result(tmp_path, journal, key * 12, "b" * 12, i)
    ledger = Ledger(tmp_path, measured=True).refresh()
    table = collect(tmp_path, ledger=ledger)
    assert measured(tmp_path) == ["a" * 12, "b" * 12]
    assert collect(tmp_path, ledger=ledger.refresh()).equals(table)
    assert measured(tmp_path) == ["a" * 12, "b" * 12]


def test_a_baselines_second_run_is_no_score_of_its_own(tmp_path: Path) -> None:
    assert scored_names(tmp_path) == set()
    for name in ("aa-1", "bb-2-noise"):
        write_statistics(tmp_path, name, {"nll": np.ones((1, 2))})
    assert scored_names(tmp_path) == {"aa-1"}


# ---- second runs


def second(output_dir: Path, name: str, what: str, seed: int, scored: bool = True) -> dict[str, list[int]]:
    """A second run of a cell, as its `result` line has it among the `files`."""
    first = records.read_predictions(output_dir, name)
    other = replace(first, text=["other", *first.text[1:]])
    files = {second_run("", what)[1:]: write_predictions(output_dir, second_run(name, what), other)}
    if scored:
        score(output_dir, second_run(name, what), seed)
    return files


def again(output_dir: Path, journal: Journal, name: str, baseline: str, **told: Any) -> None:
    """The same cell with the same words, once more."""
    known = Ledger(output_dir).refresh().attempts[name[:12]]
    line = {k: v for k, v in known.result.items() if k in ("predictions", "columns")} if known.result else {}
    journal.write(
        "result", key=name[:12], **{**line, **known.known_attempts(), "attempt": f"again-{time.time_ns()}", **told}
    )


@pytest.mark.parametrize("scorer", ["worker", "table", "table, too early"])
def test_a_noise_floor_that_is_asked_for_later_shows(tmp_path: Path, scorer: str) -> None:
    """A rerun says the same words: it is another measurement all the same."""
    journal = Journal(tmp_path)
    result(tmp_path, journal, "b" * 12, "b" * 12, 0)
    name = result(tmp_path, journal, "a" * 12, "b" * 12, 1)
    assert not [c for c in collect(tmp_path) if str(c).startswith("noise_")]
    again(
        tmp_path, journal, name, "b" * 12, files=second(tmp_path, name, "seed", 3, scored=scorer != "table, too early")
    )
    if scorer == "worker":
        (drop_writer := DropWriter(tmp_path)).add(name, "b" * 12)
        drop_writer.close()
    if scorer == "table, too early":
        collect(tmp_path)
        score(tmp_path, second_run(name, "seed"), 3)
    row = collect(tmp_path).set_index("key").loc["a" * 12]
    assert row["noise_seed_flip_rate"] == pytest.approx(1 / N)
    assert row["noise_seed_nll"] > 0
    assert measured(tmp_path) == ["a" * 12] * 2 + ["b" * 12]
    collect(tmp_path)
    assert measured(tmp_path) == ["a" * 12] * 2 + ["b" * 12]


def test_the_noise_floor_of_a_baseline_shows_with_its_cells(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    base = result(tmp_path, journal, "b" * 12, "b" * 12, 0)
    result(tmp_path, journal, "a" * 12, "b" * 12, 1)
    collect(tmp_path)
    again(tmp_path, journal, base, "b" * 12, files=second(tmp_path, base, "", 3), noise={"flip_rate": 0.25})
    assert collect(tmp_path)["noise_flip_rate"].tolist() == [0.25] * 2


@pytest.mark.parametrize("what", ["", "seed"])
@pytest.mark.parametrize("how", ["gone", "cut"])
def test_a_second_run_that_is_lost_costs_the_noise_floor_alone(
    tmp_path: Path, what: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the next one, which may say the same, counts again."""
    forget_remarks()
    journal = Journal(tmp_path)
    name = result(tmp_path, journal, "b" * 12, "b" * 12, 0)
    result(tmp_path, journal, "a" * 12, "b" * 12, 1)
    noise = {} if what else {"noise": {"flip_rate": 0.25}}
    again(tmp_path, journal, name, "b" * 12, files=second(tmp_path, name, what, 3), **noise)
    path = tmp_path / "predictions" / f"{second_run(name, what)}.json"
    path.write_bytes(path.read_bytes()[:-9])
    if how == "gone":
        path.unlink()
    table = collect(tmp_path)
    assert table["drop_nll_low"].notna().all()
    assert not [c for c in table if str(c).startswith("noise_")]
    lines = measured(tmp_path)
    assert lines == ["a" * 12, "b" * 12]
    collect(tmp_path)
    assert measured(tmp_path) == lines  # the table is not measured from files each time
    assert path.name in capsys.readouterr().err
    again(tmp_path, journal, name, "b" * 12, files=second(tmp_path, name, what, 3), **noise)
    assert [c for c in collect(tmp_path) if str(c).startswith("noise_")]


def test_a_folder_that_is_read_only_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the removal of what was not written fails too."""

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("open", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(UserError, match="Read-only file system") as told:
        write_atomic(tmp_path / "x", b"")
    assert getattr(told.value.__cause__, "errno", None) == errno.EROFS


def test_the_columns_are_those_of_a_plain_bootstrap(tmp_path: Path) -> None:
    """A second implementation: draw images with numpy, take means, take quantiles."""
    build(tmp_path, [whole(["vit"], 4), [entry("llm:all:mlp", 3)]], n=60)
    table = collect(tmp_path).set_index("key")
    base = table[table["part"] == "none"].iloc[0]
    for key, row in table[table["part"] != "none"].iterrows():
        cell, reference = (
            read_statistics(tmp_path, stem(k, r["predictions"]))["cider"] for k, r in ((key, row), (base.name, base))
        )
        rng, drops = np.random.default_rng(1), []
        for _ in range(4000):
            drawn = rng.integers(0, len(cell), len(cell))
            of_base, of_cell = reference[drawn].sum(0), cell[drawn].sum(0)
            drops.append(of_base[0] / of_base[1] - of_cell[0] / of_cell[1])
        assert row["cider"] == pytest.approx(cell[:, 0].sum() / cell[:, 1].sum())
        assert row["drop_cider"] == pytest.approx(base["cider"] - row["cider"])
        wide = np.quantile(drops, 0.975) - np.quantile(drops, 0.025)
        assert row["drop_cider_low"] == pytest.approx(np.quantile(drops, 0.025), abs=0.1 * wide)
        assert row["drop_cider_high"] == pytest.approx(np.quantile(drops, 0.975), abs=0.1 * wide)


def test_only_makers_of_tables_read_what_was_measured(tmp_path: Path) -> None:
    build(tmp_path, [whole(["vit"], 4)])
    plain, full = Ledger(tmp_path).refresh(), Ledger(tmp_path, measured=True).refresh()
    assert not any(a.measured for a in plain.attempts.values())
    assert all(len(a.measured) == 1 for a in full.attempts.values())
    line = next(iter(next(iter(full.attempts.values())).measured.values()))
    assert set(line["metrics"]) <= set(METRICS)
    assert len(json.dumps(line, default=dict)) < 2000
