"""What is forgotten counts nowhere, is computed again, and comes back as it was; nothing on disk is touched for it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest

from blip2sweep.commands.collect import collect_all
from blip2sweep.commands.forget import forget
from blip2sweep.commands.run import name_in_use
from blip2sweep.commands.sweep_list import listed, print_sweeps
from blip2sweep.commands.table import show_table
from blip2sweep.console import remarks
from blip2sweep.errors import UserError
from blip2sweep.importing.table_csv import import_csv
from blip2sweep.machine.processes import born
from blip2sweep.reporting.table_asked import Asked
from blip2sweep.reporting.table_baselines import absent_baselines
from blip2sweep.results import collector
from blip2sweep.results.collect import collect
from blip2sweep.results.forgotten import KIND
from blip2sweep.results.latest import read_table, up_to_date
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.lines import sealed
from blip2sweep.results.sweeps import Submission, find_results, find_sweep, list_sweeps
from blip2sweep.running.status import print_status
from tests import ledgers
from tests.command_line import blip2sweep, refused
from tests.composing import plan


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ledgers.folder(tmp_path_factory.mktemp("made") / "outputs")


@pytest.fixture
def outputs(made: Path, tmp_path: Path) -> Path:
    remarks.forget()
    shutil.copytree(made, tmp_path / "outputs", copy_function=shutil.copy2)
    shutil.copy(made.parent / "mine.csv", tmp_path)
    return tmp_path / "outputs"


def keys_of(outputs: Path, recipe: str) -> list[str]:
    table = pd.read_parquet(outputs / "table.parquet")
    return table.loc[table["recipe"].str.startswith(recipe), "key"].tolist()


def key_of(outputs: Path, recipe: str) -> str:
    (key,) = keys_of(outputs, recipe)
    return key


def rows(outputs: Path) -> pd.DataFrame:
    return up_to_date(outputs, None)[0].set_index("key")


def sampled(outputs: Path) -> set[str]:
    return set(pd.read_parquet(outputs / "samples.parquet")["key"])


def on_disk(outputs: Path) -> dict[str, bytes]:
    """All that an act of forgetting leaves alone."""
    folders = ("journals", "predictions", "scores", "sweeps")
    files = (p for f in folders for p in (outputs / f).rglob("*") if p.is_file() and p.suffix != ".parquet")
    return {str(p.relative_to(outputs)): p.read_bytes() for p in files}


# ---- a cell


def test_a_forgotten_cell_is_in_no_table_and_comes_back_as_it_was(outputs: Path) -> None:
    key, before, table = key_of(outputs, "llm:all:all=rtn4"), on_disk(outputs), rows(outputs)
    said = forget(outputs, key[:7])
    assert (
        said[0]
        == f"cell {key} (llm:all:all=rtn4/channel) is forgotten: in no table, and computed again when it is asked for"
    )
    assert "asked for by 1 sweep: first" in said[1]
    assert key not in rows(outputs).index
    assert key not in up_to_date(outputs, find_sweep(outputs, "first"))[0]["key"].tolist()
    assert key not in sampled(outputs)
    assert set(rows(outputs).index) == set(table.index) - {key}
    assert before.items() <= on_disk(outputs).items()
    assert [one["states"] for one in listed(outputs) if one["name"] == "first"] == [
        {"done": 3, "failed": 1, "forgotten": 1}
    ]
    assert forget(outputs, None, undo=True) == ["1 cell back, 1 with a result; nothing was computed"]
    pd.testing.assert_frame_equal(rows(outputs), table)
    assert key in sampled(outputs)
    new = on_disk(outputs).keys() - before.keys()
    assert len(new) == 2
    assert all(name.endswith(f"{KIND}.jsonl") for name in new)


def test_it_is_planned_again_and_what_is_computed_then_counts(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, jobs = key_of(outputs, "llm:all:all=rtn4"), ledgers.jobs()
    before = Ledger(outputs).refresh().attempts[key].result
    forget(outputs, key)
    assert before is not None
    assert {c.key for c in plan(*ledgers.WORDS, output_dir=outputs).todo} >= {key}
    ledgers.ran(outputs, [j for j in jobs if j["key"] == key], "first")
    now = Ledger(outputs).refresh().attempts[key].result
    assert now is not None
    assert now["attempt"] != before["attempt"]
    forget(outputs, None, undo=True)
    attempts = Ledger(outputs).refresh().attempts[key]
    assert attempts.result == now  # it knew the one that was forgotten
    assert "do not know each other" not in capsys.readouterr().err


def test_a_failure_is_forgotten_too_and_status_says_so(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = key_of(outputs, "vit:all:all=rtn2")
    assert forget(outputs, key)[0].startswith(f"cell {key} (without a result) is forgotten")
    assert key not in rows(outputs).index
    print_status(outputs, "first")
    out = capsys.readouterr().out
    assert "told to fail" not in out
    assert f"1 of them forgotten: `blip2sweep forget --undo {key}` brings one back" in out
    forget(outputs, key[:5], undo=True)
    assert rows(outputs).loc[key, "error"] == "told to fail"


def test_cells_compared_with_a_forgotten_baseline_have_no_drop_until_it_is_back(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, before = key_of(outputs, "llm:all:all=rtn4"), rows(outputs)
    base = before.loc[cell, "baseline"]
    said = forget(outputs, str(base))
    assert any("compared with it, without a drop until it is there again" in line for line in said)
    assert pd.isna(rows(outputs).loc[cell].get("drop_vqa_accuracy"))
    assert rows(outputs).loc[cell, "vqa_accuracy"] == before.loc[cell, "vqa_accuracy"]
    monkeypatch.setattr(collector, "measure", None)  # nothing is measured again
    forget(outputs, None, undo=True)
    pd.testing.assert_frame_equal(rows(outputs), before)


def test_the_table_says_that_a_baseline_is_forgotten_or_never_ran(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = str(rows(outputs).loc[key_of(outputs, "llm:all:all=rtn4"), "baseline"])
    forget(outputs, key)
    show_table(outputs, "first", False, Asked())
    told = capsys.readouterr().out
    assert "interval: none, for without a baseline there is no drop" in told
    assert (
        f"{key}, the baseline of 3 cells, is forgotten, so they have no drop; right: `blip2sweep forget --undo {key}`"
        in told
    )
    show_table(outputs, "first", False, Asked(format="csv"))
    assert "is forgotten" in capsys.readouterr().err
    table = up_to_date(outputs, None)[0]
    (line,) = absent_baselines(table, tmp_path / "without acts")
    assert "has no result, so they have no drop" in line
    forget(outputs, None, undo=True)
    assert not absent_baselines(up_to_date(outputs, None)[0], outputs)


def test_what_was_deleted_after_it_was_forgotten_is_not_missed(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = key_of(outputs, "llm:all:all=rtn4")
    forget(outputs, key)
    next((outputs / "predictions").glob(f"{key}-*.json")).unlink()
    remarks.forget()
    assert not Ledger(outputs).refresh().done(key)
    assert "not counted" not in capsys.readouterr().err
    forget(outputs, key, undo=True)
    assert "1 result not counted: the predictions are gone" in capsys.readouterr().err


def test_what_runs_now_is_not_forgotten(outputs: Path) -> None:
    key = key_of(outputs, "llm:all:all=rtn4")
    journal = Journal(outputs)
    journal.write("started", key=key, sweep="first", run="now", attempt="now", process=born())
    with pytest.raises(UserError, match=f"{key}: it is being computed now; right: `blip2sweep cancel`"):
        forget(outputs, key)
    sweep = find_sweep(outputs, "again")
    sweep.submissions.append(Submission("now", "local", {"workers": 1}, 1, pid=os.getpid()))
    sweep.write(outputs)
    with pytest.raises(UserError, match="again: it runs"):
        forget(outputs, "again")
    assert not list((outputs / "journals").glob(f"*{KIND}.jsonl"))


# ---- a sweep


def test_cells_that_other_sweeps_ask_for_stay(outputs: Path) -> None:
    first, again = find_sweep(outputs, "first"), find_sweep(outputs, "again")
    own, before = set(first.keys) - set(again.keys), rows(outputs)
    calibrated = find_sweep(outputs, "calibrated")
    said = forget(outputs, "first")
    stay = set(first.keys) & {*again.keys, *calibrated.keys}
    assert said[0].startswith(f"sweep first is forgotten, with {len(own)} of its 5 cells")
    assert f"{len(stay)} cells stay, asked for by other sweeps too: again (2), calibrated (1)" in said[1]
    assert set(rows(outputs).index) == set(before.index) - own
    assert "first" not in [s.name for s in list_sweeps(outputs)]
    assert "first" not in [one["name"] for one in listed(outputs)]
    assert find_results(outputs, None).name != "first"
    with pytest.raises(UserError, match="sweep 'first' was forgotten; right: `blip2sweep forget --undo first`"):
        find_sweep(outputs, "first")
    assert (
        forget(outputs, "first", undo=True)[0]
        == f"sweep first and {len(own)} cells back, 2 with a result; nothing was computed"
    )
    pd.testing.assert_frame_equal(rows(outputs), before)


def test_a_sweep_without_cells_of_its_own_says_that_they_stay(outputs: Path) -> None:
    before = rows(outputs)
    assert forget(outputs, "again")[:2] == [
        "sweep again is forgotten: it is in no list, and none of its 2 cells is",
        "  2 cells stay, asked for by other sweeps too: first (2), calibrated (1)",
    ]
    assert set(rows(outputs).index) == set(before.index)
    assert forget(outputs, "again", undo=True) == ["sweep again back; nothing was computed"]


def test_a_cell_that_a_kept_cell_is_compared_with_stays(outputs: Path) -> None:
    sweep = find_sweep(outputs, "calibrated")
    sweep.keys = [k for k in sweep.keys if k not in sweep.baselines]
    sweep.write(outputs)
    forget(outputs, "again")
    base = find_sweep(outputs, "first").baselines[0]
    said = forget(outputs, "first")
    assert f"1 cell stay, as other cells are compared with them: {base}" in said[1].replace("cells stay", "cell stay")
    assert base in rows(outputs).index


def test_the_name_of_a_forgotten_sweep_is_free(outputs: Path) -> None:
    forget(outputs, "first")
    other = plan("task=shapes_vqa", "task.limit=8", "part=llm", "quant.bits=8")
    assert name_in_use(outputs, "first", other) is None
    ledgers.launched(outputs, ledgers.jobs())
    sweep = find_sweep(outputs, "again")
    sweep.name, sweep.created = "first", time.time()
    sweep.write(outputs)
    assert find_sweep(outputs, "first").created == sweep.created
    assert [one["name"] for one in listed(outputs)].count("first") == 1


def test_imported_rows_are_forgotten_and_imported_again(outputs: Path) -> None:
    before = rows(outputs)
    imported = set(before.index[before["imported"].notna()])
    forget(outputs, "csv-mine")
    assert set(rows(outputs).index) == set(before.index) - imported
    import_csv(outputs.parent / "mine.csv", outputs)
    collect(outputs)
    assert set(rows(outputs).index) == set(before.index)
    assert "csv-mine" in [s.name for s in list_sweeps(outputs)]


# ---- how lines are read


def test_the_order_of_lines_and_journals_does_not_matter(tmp_path: Path) -> None:
    head = {"host": "h", "pid": 1, "key": "k"}
    lines = [
        {"event": "result", "time": 1.0, **head, "attempt": "a", "predictions": None},
        {"event": "forgotten", "time": 2.0, **head, "forget": "f", "attempts": ["a"]},
        {"event": "unforgotten", "time": 3.0, **head, "forget": "f"},
        {"event": "forgotten", "time": 4.0, **head, "forget": "g", "attempts": ["a"]},
        {"event": "result", "time": 0.5, **head, "attempt": "b", "predictions": None, "replaces": ["a"], "starts": []},
    ]
    for i, order in enumerate(itertools.permutations(lines)):
        folder = tmp_path / str(i) / "journals"
        folder.mkdir(parents=True)
        for place, line in enumerate(order):
            (folder / f"{place}.jsonl").write_bytes(sealed(line, 0))
        attempts = Ledger(tmp_path / str(i)).refresh().attempts["k"]
        assert attempts.hidden == {"a"}
        assert attempts.results == {"b"}
        assert attempts.result is not None
        assert attempts.result["attempt"] == "b"


@pytest.mark.parametrize("brief", [False, True])
def test_a_ledger_of_some_cells_knows_what_was_forgotten(outputs: Path, brief: bool) -> None:
    key, ledger = key_of(outputs, "llm:all:all=rtn4"), None
    ledger = Ledger(outputs, only={key}, brief=brief).refresh()
    assert ledger.done(key)
    forget(outputs, key)
    assert not ledger.refresh().done(key)  # one that was read before
    assert not Ledger(outputs, only={key}, brief=brief).refresh().done(key)
    forget(outputs, key, undo=True)
    assert ledger.refresh().done(key)


def test_lines_of_a_later_version_change_nothing(outputs: Path) -> None:
    """As lines of forgetting change nothing for an earlier one."""
    before = {k: a.result for k, a in Ledger(outputs).refresh().attempts.items()}
    journal = Journal(outputs)
    journal.write_many("of_a_later_version", [{"key": key, "attempts": ["x"]} for key in before])
    journal.write("of_a_later_version", sweep="first")
    journal.close()
    assert {k: a.result for k, a in Ledger(outputs).refresh().attempts.items()} == before


# ---- what is refused, and what is typed


@pytest.mark.parametrize(
    ("what", "undo", "said"),
    [
        (None, False, "forget: what? right: a key of `blip2sweep table`"),
        ("frist", False, "frist: no sweep and no cell here; did you mean 'first'?"),
        ("", False, "cells have such a key"),
        (None, True, "nothing is forgotten here"),
    ],
)
def test_what_is_not_there_is_said(outputs: Path, what: str | None, undo: bool, said: str) -> None:
    with pytest.raises(UserError) as error:
        forget(outputs, what, undo)
    assert said in str(error.value)
    assert not list((outputs / "journals").glob(f"*{KIND}.jsonl"))


def test_what_is_forgotten_already_is_said(outputs: Path) -> None:
    key = key_of(outputs, "llm:all:all=rtn4")
    forget(outputs, key)
    with pytest.raises(UserError, match=f"{key}: forgotten already; right: `blip2sweep forget --undo {key}`"):
        forget(outputs, key)
    with pytest.raises(UserError, match="--undo nope: nothing of that name is forgotten"):
        forget(outputs, "nope", undo=True)


def test_verbs_as_typed(outputs: Path) -> None:
    shown = blip2sweep("sweeps", cwd=outputs.parent)
    assert (shown.code, shown.err) == (0, "")
    assert all(word in shown.out for word in ("first", "again", "calibrated", "4 done, 1 ", "part=vit,llm"))
    assert blip2sweep("forget", "again", cwd=outputs.parent).code == 0
    refused(blip2sweep("forget", "--output-dir", "nope", "first", cwd=outputs.parent), "no sweep and no cell here")


def test_the_list_names_what_was_forgotten_and_programs_read_it(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forget(outputs, "again")
    forget(outputs, key_of(outputs, "llm:all:all=rtn4"))
    print_sweeps(outputs, "rich")
    assert "forgotten: 1 sweep (again), 1 cell; " in capsys.readouterr().out
    forget(outputs, None, undo=True)
    print_sweeps(outputs, "rich")
    assert "forgotten: 1 sweep (again); `blip2sweep forget --undo` takes the last back" in capsys.readouterr().out
    print_sweeps(outputs, "json")
    found = json.loads(capsys.readouterr().out)
    assert [(s["name"], s["cells"], s["states"]) for s in found] == [
        ("first", 5, {"done": 4, "failed": 1}), ("calibrated", 2, {"done": 2}), ("csv-mine", 2, {"done": 2})
    ]  # fmt: skip
    with pytest.raises(UserError, match="--format xml: unknown format; right: rich or json"):
        print_sweeps(outputs, "xml")
    for verb in (lambda: print_sweeps(tmp_path / "nope", "rich"), lambda: collect_all(tmp_path / "nope")):
        with pytest.raises(UserError, match=r"nope: no (sweep|journals) here"):
            verb()


def test_collect_makes_what_is_gone(outputs: Path) -> None:
    before = rows(outputs)
    shutil.rmtree(outputs / "samples.parquet")
    (outputs / "table.parquet").unlink()
    (outputs / "sweeps" / "first" / "table.parquet").unlink(missing_ok=True)
    said = collect_all(outputs)
    assert said[0].startswith(f"wrote {outputs}/table.parquet ({len(before)} cells: ")
    assert f"wrote {outputs}/sweeps/first/table.parquet" in said
    pd.testing.assert_frame_equal(read_table(outputs / "table.parquet").set_index("key"), before)
    assert (outputs / "sweeps" / "first" / "table.parquet").exists()
    assert sampled(outputs)
