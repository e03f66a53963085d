"""What is damaged, gone or somebody else's is named, and stops nothing else."""

from __future__ import annotations

import builtins
import errno
import getpass
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import psutil
import pytest

from blip2sweep import files as store
from blip2sweep.backends.dummy import Dummy
from blip2sweep.cache.disk import Store
from blip2sweep.commands.cell_words import cell_overrides
from blip2sweep.commands.rescore import rescore
from blip2sweep.console import remarks
from blip2sweep.errors import UserError
from blip2sweep.importing.table_csv import import_csv
from blip2sweep.machine import processes
from blip2sweep.planning.packs import pack_data, read_pack, sweep_jobs
from blip2sweep.planning.plan import make_plan
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.lines import sealed
from blip2sweep.results.predictions import predictions_or_none, read_predictions, stem
from blip2sweep.results.sweeps import Submission, find_sweep, list_sweeps
from blip2sweep.results.table_files import state
from blip2sweep.running import local
from blip2sweep.running.queue import QueueState, submitter_lives
from blip2sweep.running.status import sweep_status, warnings
from blip2sweep.workers import worker
from blip2sweep.workers.attempts import may_live
from blip2sweep.workers.run_cell import failure_kind, run_cell
from blip2sweep.workers.signals import Stop
from tests import ledgers
from tests.command_line import blip2sweep
from tests.composing import plan
from tests.params import quick


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ledgers.folder(tmp_path_factory.mktemp("made") / "outputs")


@pytest.fixture
def outputs(made: Path, tmp_path: Path) -> Path:
    """A copy of its own; and everything may be said again."""
    remarks.forget()
    shutil.copytree(made, tmp_path / "outputs", copy_function=shutil.copy2)
    return tmp_path / "outputs"


def result_of(outputs: Path, recipe: str) -> dict[str, Any]:
    computed = [r for r in Ledger(outputs).refresh().results() if r["predictions"]]
    return next(r for r in computed if r["columns"]["recipe"].startswith(recipe))


def predictions_of(outputs: Path, recipe: str) -> Path:
    result = result_of(outputs, recipe)
    return outputs / "predictions" / f"{stem(result['key'], result['predictions'])}.json"


def touch(path: Path, data: bytes) -> None:
    path.write_bytes(data)


# ---- lines


def test_every_flip_of_a_journal_is_found(tmp_path: Path) -> None:
    """One bit of 0.0247 makes 0.2247."""
    journal = Journal(tmp_path)
    for key in "abc":
        journal.write("result", key=key, predictions=None, value=0.0247)
    data, whole = journal.path.read_bytes(), Ledger(tmp_path).refresh().results()
    for at in range(0, len(data), 3):
        touch(journal.path, data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        now = Ledger(tmp_path).refresh().results()
        assert len(now) >= len(whole) - 2
        values = [{k: v for k, v in r.items() if k in ("key", "value", "predictions")} for r in now]
        assert all(v == {"key": v["key"], "value": 0.0247, "predictions": None} for v in values)


@pytest.mark.parametrize(("lost", "told"), [(0, "1 line missing"), (1, "1 line missing"), (2, "")])
def test_a_lost_line_is_missed_but_for_the_last(
    tmp_path: Path, lost: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    remarks.forget()
    lines = [
        sealed({"event": "result", "time": 1.0, "host": "h", "key": key, "predictions": None}, i)
        for i, key in enumerate("abc")
    ]
    (tmp_path / "journals").mkdir()
    (tmp_path / "journals" / "x.jsonl").write_bytes(b"".join(x for i, x in enumerate(lines) if i != lost))
    assert len(Ledger(tmp_path).refresh().results()) == 2
    err = capsys.readouterr().err
    assert told in err
    assert bool(err) == bool(told)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_the_last_lines_of_a_closed_journal_are_missed_too(
    tmp_path: Path, left: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A journal that its writer did not close may end anywhere."""
    remarks.forget()
    journal = Journal(tmp_path)
    for key in "abc":
        journal.write("result", key=key, predictions=None)
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join(lines[:left]))
    assert len(Ledger(tmp_path).refresh().results()) == left
    assert capsys.readouterr().err == ""
    journal.close()
    ledger = Ledger(tmp_path)
    assert len(ledger.refresh().refresh().results()) == left
    assert f"{journal.path.name}: {remarks.many(3 - left, 'line')} missing" in capsys.readouterr().err


def test_lines_of_an_earlier_version_pass_but_not_among_sealed_ones(outputs: Path) -> None:
    """A line whose checksum was lost is no old line."""
    lines = [x for p in sorted((outputs / "journals").iterdir()) for x in p.read_bytes().splitlines()]
    old = [re.sub(rb',"n":\d+,"crc":"[0-9a-f]{8}"\}$', b"}", x) for x in lines]
    assert all(a != b for a, b in zip(old, lines, strict=True))
    whole = collect(outputs)
    for folder in ("journals", ".journals"):
        shutil.rmtree(outputs / folder)
    (outputs / "journals").mkdir()
    (outputs / "journals" / "old.jsonl").write_bytes(b"\n".join(old) + b"\n")
    now = collect(outputs).set_index("key").reindex(whole["key"]).reset_index()
    pd.testing.assert_frame_equal(now[whole.columns], whole)
    seal_one = sealed({"event": "worker", "time": 1.0, "host": "h", "run": "r", "pack": 0}, 0)
    (outputs / "journals" / "old.jsonl").write_bytes(seal_one + b"\n".join(old) + b"\n")
    assert Ledger(outputs).refresh().results() == []


@pytest.mark.thorough
def test_a_lost_journal_is_missed(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = next(p for p in (outputs / "journals").iterdir() if b'"event":"failed"' in p.read_bytes())
    gone.unlink()
    Ledger(outputs).refresh()
    assert gone.name in capsys.readouterr().err
    assert blip2sweep("status", "first", "--output-dir", str(outputs), cwd=outputs).err.count(gone.name) == 1


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("what", ["one", "folder"])
def test_a_journal_that_may_not_be_read(outputs: Path, what: str) -> None:
    _unreadable(outputs, what)


@pytest.mark.parametrize("what", ["one", "folder"])
def test_a_journal_that_cannot_be_read_is_named_and_tables_stay(
    outputs: Path, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Root reads everything, so the system's answer is made up."""
    journals = outputs / "journals"
    path = next(p for p in sorted(journals.iterdir()) if b'"event":"result"' in p.read_bytes())
    refused = str(path) if what == "one" else str(journals)
    sweep = find_sweep(outputs, "first")
    collect(outputs, sweep)
    real_open, real_scandir = builtins.open, os.scandir

    def opened(file: Any, *given: Any, **more: Any) -> Any:
        if str(file) == refused:
            raise PermissionError(errno.EACCES, "Permission denied", file)
        return real_open(file, *given, **more)

    def scanned(folder: Any = ".") -> Any:
        if str(folder) == refused:
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return real_scandir(folder)

    monkeypatch.setattr(builtins, "open", opened)
    monkeypatch.setattr(os, "scandir", scanned)
    before = {p: p.read_bytes() for p in outputs.rglob("*.parquet") if p.is_file()}
    ledger = Ledger(outputs).refresh()
    collect(outputs, sweep)
    monkeypatch.undo()
    assert {p: p.read_bytes() for p in outputs.rglob("*.parquet") if p.is_file()} == before
    assert any("the numbers may be incomplete" in line for line in warnings(ledger, sweep))
    err = capsys.readouterr().err
    assert f"{refused}: cannot be read (Permission denied)" in err
    assert err.count("Permission denied") == 1


def _unreadable(outputs: Path, what: str) -> None:
    path = next(p for p in sorted((outputs / "journals").iterdir()) if b'"event":"result"' in p.read_bytes())
    (path if what == "one" else path.parent).chmod(0)
    try:
        ran = blip2sweep("status", "first", "--output-dir", str(outputs), cwd=outputs)
    finally:
        (path if what == "one" else path.parent).chmod(0o755)
    assert ran.code == 0, ran.err
    assert "the numbers may be incomplete" in ran.out


def test_a_link_to_nowhere_hides_no_other_journal(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (outputs / "journals" / "gone.jsonl").symlink_to("nowhere")
    (outputs / "journals" / "folder.jsonl").mkdir()
    assert len(Ledger(outputs).refresh().results()) > 3
    assert "gone.jsonl" in capsys.readouterr().err


# ---- which result counts


def _line(key: str, attempt: str, when: float, **told: Any) -> dict[str, Any]:
    return {
        "event": "result",
        "time": when,
        "host": attempt,
        "pid": 1,
        "key": key,
        "attempt": attempt,
        "predictions": None,
        **told,
    }


def _journal(folder: Path, name: str, *records: dict[str, Any]) -> None:
    (folder / "journals").mkdir(exist_ok=True)
    (folder / "journals" / f"{name}.jsonl").write_bytes(b"".join(sealed(r, i) for i, r in enumerate(records)))


def test_a_host_whose_clock_is_slow_replaces_what_it_knew(tmp_path: Path) -> None:
    _journal(tmp_path, "one", _line("k", "first", 9e8, replaces=[], starts=[]))
    _journal(tmp_path, "two", _line("k", "second", 5.0, replaces=["first"], starts=["first"]))
    found = Ledger(tmp_path).refresh().attempts["k"]
    assert found.result is not None
    assert found.result["attempt"] == "second"
    assert found.rivals == []
    assert found.started == 2


@pytest.mark.parametrize("times", [(1.0, 2.0), (2.0, 1.0)])
def test_of_two_that_do_not_know_each_other_the_larger_id_counts_and_it_is_said(
    tmp_path: Path, times: tuple[float, float], capsys: pytest.CaptureFixture[str]
) -> None:
    remarks.forget()
    for attempt, when in zip(("aa", "bb"), times, strict=True):
        _journal(tmp_path, attempt, _line("k", attempt, when, replaces=[], starts=[]))
    result = Ledger(tmp_path).refresh().attempts["k"].result
    assert result is not None
    assert result["attempt"] == "bb"
    assert "1 cell with results that do not know each other" in (said := capsys.readouterr().err)
    assert "k (bb of aa, bb)" in said
    remarks.forget()
    _journal(tmp_path, "cc", _line("k", "0", 0.5, replaces=["aa", "bb"], starts=[]))
    assert Ledger(tmp_path).refresh().attempts["k"].result["attempt"] == "0"  # type: ignore[index]
    assert capsys.readouterr().err == ""


def test_whoever_reads_the_ledger_briefly_chooses_the_same_result(tmp_path: Path) -> None:
    """`status`, `wait` and `retry` do. By ids, not by clocks, and after the chosen one is lost as well."""
    (tmp_path / "predictions").mkdir()
    for attempt, when in (("aa", 9.0), ("bb", 1.0)):
        (tmp_path / "predictions" / f"k-{attempt}.json").write_text("{}")
        head = {"sweep": "s", "run": "r", "attempt": attempt, "predictions": attempt, "files": {}}
        line = {k: v for k, v in _line("k", attempt, when).items() if k not in head}
        failed = {**line, **head, "event": "failed", "attempt": "cc", "kind": "oom", "error": "x", "time": 5.0}
        _journal(tmp_path, attempt, {**line, **head, "replaces": [], "starts": ["cc"]}, failed)
    readers = [Ledger(tmp_path), Ledger(tmp_path, brief=True)]
    full, brief = (ledger.refresh().attempts["k"] for ledger in readers)
    assert full.result is not None
    assert brief.result is not None
    assert full.result["attempt"] == brief.result["attempt"] == "bb"
    assert full.started == brief.started == 2
    assert full.last_failure is brief.last_failure is None
    (tmp_path / "predictions" / "k-bb.json").unlink()
    full, brief = (Ledger(tmp_path, brief=b).refresh().attempts["k"] for b in (False, True))
    assert full.result is brief.result is None


def test_results_of_earlier_versions_are_ordered_by_time_and_before_all_others(tmp_path: Path) -> None:
    _journal(tmp_path, "old", _line("k", "z", 3.0), _line("k", "a", 4.0))
    assert Ledger(tmp_path).refresh().attempts["k"].result["attempt"] == "a"  # type: ignore[index]
    _journal(tmp_path, "new", _line("k", "b", 1.0, replaces=[], starts=[]))
    assert Ledger(tmp_path).refresh().attempts["k"].result["attempt"] == "b"  # type: ignore[index]


def test_what_a_lost_result_replaced_is_not_shown_without_a_word(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line of a cell that was computed again is the last of its journal: nothing else there tells that it is gone."""
    again = find_sweep(outputs, "again")
    (key,) = again.rerun
    path = next(
        p
        for p in (outputs / "journals").iterdir()
        if b'"sweep":"again"' in p.read_bytes() and b"result" in p.read_bytes()
    )
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    collect(outputs)
    err = capsys.readouterr().err
    assert f"shown with the result that --rerun is to replace: the ledger has no newer one ({key})" in err
    assert f"with an attempt that has not ended and that the result shown does not know ({key})" in err


def test_a_result_names_what_it_replaces_and_the_attempts_before_it(outputs: Path) -> None:
    (key,) = find_sweep(outputs, "again").rerun
    attempts = Ledger(outputs).refresh().attempts[key]
    first, second = sorted(attempts.all_results.values(), key=lambda r: len(r["replaces"]))
    assert (first["replaces"], first["starts"]) == ([], [])
    assert (second["replaces"], second["starts"]) == ([first["attempt"]], [first["attempt"]])


# ---- predictions


def cutting(path: Path) -> None:
    touch(path, path.read_bytes()[:-9])


def flipping(path: Path) -> None:
    data = path.read_bytes()
    touch(path, data.replace(b'"text":["', b'"text":["x', 1)[: len(data)])


def saying_otherwise(path: Path) -> None:
    data = json.loads(path.read_bytes())
    data["text"][0] = "other"
    touch(path, json.dumps({k: v for k, v in data.items() if k != "crc"}, separators=(",", ":")).encode())


DAMAGES = [cutting, flipping, saying_otherwise, Path.unlink, lambda p: touch(p, b"")]


@pytest.mark.parametrize("damage", quick(DAMAGES))
@pytest.mark.parametrize("measured", quick([True, False]))
def test_a_cell_whose_predictions_are_gone_or_cut_is_lost_and_the_others_are_not(
    outputs: Path, damage: Any, measured: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = predictions_of(outputs, "llm:all:all=rtn4")
    key = path.name[:12]
    damage(path)
    if not measured:
        for journal in (outputs / "journals").iterdir():
            kept = [x for x in journal.read_bytes().splitlines() if b'"event":"measured"' not in x]
            records = [{k: v for k, v in json.loads(x).items() if k not in ("n", "crc")} for x in kept]
            journal.write_bytes(b"".join(sealed(r, i) for i, r in enumerate(records)))
    before = collect(outputs)
    assert path.name in capsys.readouterr().err
    assert key not in set(before["key"])
    assert key not in set(pd.read_parquet(outputs / "samples.parquet")["key"])
    assert len(before) == 7
    sweep = find_sweep(outputs, "first")
    for brief in (True, False):
        states = sweep_status(outputs, sweep, Ledger(outputs, brief=brief), QueueState()).states
        assert states[key] == "lost"
        assert sorted(states.values()) == ["done", "done", "done", "failed", "lost"]
    assert key in {c.key for c in make_plan(plan(*ledgers.WORDS).jobs, Ledger(outputs).refresh()).todo}
    assert "cells" in rescore(outputs)
    ledgers.ran(outputs, [j for j in ledgers.jobs() if j["key"] == key])
    rescore(outputs)
    assert key in set(collect(outputs)["key"])
    assert key in set(pd.read_parquet(outputs / "samples.parquet")["key"])


def test_a_baseline_without_predictions_takes_its_drops_along_and_nothing_else(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cutting(path := predictions_of(outputs, "none"))
    table = collect(outputs)
    assert path.name in capsys.readouterr().err
    own = table[table["task"] == "shapes_vqa"]
    assert own[own["status"] == "done"]["vqa_accuracy"].notna().all()
    assert "drop_vqa_accuracy" not in own or own["drop_vqa_accuracy"].isna().all()


def test_damage_that_only_reading_finds(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A disk that forgets changes no time. Who reads it moves it aside, so that the cell is lost for all."""
    path = predictions_of(outputs, "llm:all:all=rtn4")
    stat = path.stat()
    saying_otherwise(path)
    touch(path, path.read_bytes() + b" " * (stat.st_size - path.stat().st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert Ledger(outputs).refresh().done(path.name[:12])
    assert predictions_or_none(outputs, path.stem) is None
    assert not path.exists()
    assert path.with_name(path.name + ".damaged").exists()
    assert not Ledger(outputs).refresh().done(path.name[:12])
    assert path.name in capsys.readouterr().err


def test_a_copied_folder_is_whole(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its files have other times."""
    shutil.copytree(outputs, tmp_path / "copy", copy_function=shutil.copyfile)
    whole = collect(outputs)
    pd.testing.assert_frame_equal(collect(tmp_path / "copy"), whole)
    assert capsys.readouterr().err == ""


def test_an_output_folder_that_is_moved_while_a_worker_writes(tmp_path: Path) -> None:
    """Predictions go where the folder was: so does the line that commits them."""
    journal, job = Journal(tmp_path / "out"), ledgers.jobs()[0]
    pack = pack_data([job], "s", "r", tmp_path / "out", {})
    journal.write("worker", sweep="s", run="r", pack=0)
    (tmp_path / "out").rename(tmp_path / "moved")
    name = run_cell(job, Dummy({}), journal, pack, Stop())
    assert name is not None
    assert Ledger(tmp_path / "out").refresh().done(job["key"])
    assert read_predictions(tmp_path / "out", name).id
    assert Ledger(tmp_path / "moved").refresh().workers


# ---- files of sweeps


def test_a_bad_sweep_hides_itself_and_no_other(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = outputs / "sweeps" / "first" / "sweep.json"
    data = path.read_bytes()
    names = [s.name for s in list_sweeps(outputs)]
    odd = (b"", b"[]", b"null", b"\xff", b'{"name":"first"}', data[:-40], data.replace(b"rtn", b"rtm", 1), data.replace(b"vit", b"vjt", 1),
           b'{"name":"first","command":1,"created":"x","keys":3,"baselines":[]}')  # fmt: skip
    for text in odd:
        if text != data:
            remarks.forget()
            touch(path, text)
            assert [s.name for s in list_sweeps(outputs)] == [n for n in names if n != "first"]
            assert capsys.readouterr().err.count("sweeps/first/sweep.json") == 1
            with pytest.raises(UserError, match=r"sweeps/first/sweep\.json"):
                find_sweep(outputs, "first")
    ran = blip2sweep("status", "calibrated", "--output-dir", str(outputs), cwd=outputs)
    assert ran.code == 0, ran.err


def test_a_damaged_pack_is_never_run_and_stops_no_other(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flipped bit of a recipe would be computed under the key of another."""
    path = next((outputs / "sweeps" / "first" / "packs").iterdir())
    touch(path, path.read_bytes().replace(b'"bits":2', b'"bits":3', 1))
    with pytest.raises(UserError, match="checksum"):
        read_pack(path)
    assert sweep_jobs(path.parent.parent) == {}
    assert path.name in capsys.readouterr().err
    next((outputs / "scores").glob(f"{result_of(outputs, 'llm:all:all=gptq3')['key']}*")).unlink()
    assert rescore(outputs).startswith("scored 1 of ")


def test_a_worker_whose_pack_is_damaged_says_so_in_one_line(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("settle_user", "end_with_parent", "Stop"):
        monkeypatch.setattr(worker, name, lambda: SimpleNamespace(install=lambda: None))
    path = next((outputs / "sweeps" / "first" / "packs").iterdir())
    for damaged in (b"[]", path.read_bytes()[:-40]):
        touch(path, damaged)
        assert worker.main([str(path)]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: {path}")
        assert len(err.strip().splitlines()) == 1


def test_a_launch_whose_packs_cannot_be_read_is_not_noted(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "visible_gpus", list)
    monkeypatch.setattr(local, "write_packs", lambda *given: [outputs / "gone.json"])
    sweep = find_sweep(outputs, "first")
    with pytest.raises(UserError, match=r"gone\.json: cannot be read"):
        local.run_local(ledgers.jobs(), sweep, outputs, 1)
    assert len(find_sweep(outputs, "first").submissions) == len(sweep.submissions) == 1


def test_a_command_with_an_open_quote_has_words(outputs: Path) -> None:
    """As an earlier version noted the name of an imported file."""
    assert cell_overrides("import csv anna's.csv") == ["import", "csv", "anna's.csv"]
    (outputs.parent / "anna's table.csv").write_text("part,bits,cider\nnone,,1.2\nvit,4,1.1\n")
    name = import_csv(outputs.parent / "anna's table.csv", outputs).name
    assert cell_overrides(find_sweep(outputs, name).command) == ["import", "csv", "anna's table.csv"]


def test_journals_that_may_not_be_read_are_named_by_makers_of_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    remarks.forget()
    Journal(tmp_path).write("result", key="k", predictions=None)
    real = os.scandir

    def refused(folder: Any = ".") -> Any:
        if Path(folder) == tmp_path / "journals":
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return real(folder)

    monkeypatch.setattr(os, "scandir", refused)
    assert state(tmp_path) == {}
    assert len(collect(tmp_path)) == 0
    assert capsys.readouterr().err.count("journals: cannot be read (Permission denied)") == 1


@pytest.mark.thorough
def test_samples_are_found_damaged_whatever_was_hit(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = (outputs / "samples.parquet").iterdir()
    data = path.read_bytes()
    whole = pd.read_parquet(outputs / "samples.parquet").sort_values(["key", "id"]).reset_index(drop=True)
    for at in range(5, len(data), len(data) // 12):
        remarks.forget()
        for part in (outputs / "samples.parquet").iterdir():
            part.unlink()
        touch(path, data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        collect(outputs)
        now = pd.read_parquet(outputs / "samples.parquet").sort_values(["key", "id"]).reset_index(drop=True)
        pd.testing.assert_frame_equal(now, whole)
        assert path.name in capsys.readouterr().err


def test_an_entry_of_the_cache_that_is_damaged_is_not_served(tmp_path: Path) -> None:
    cache = Store(tmp_path, 10**6)
    cache.put("k", b"payload" * 20)
    (path,) = tmp_path.glob("*.entry")
    data = path.read_bytes()
    for at in range(len(data)):
        touch(path, data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        assert cache.get("k") in (None, b"payload" * 20)
    touch(path, b"[" * 4000 + b"\n")
    assert cache.get("k") is None


# ---- who lives


def test_a_process_is_known_by_its_own_start_whatever_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Submission("r", "local", {})
    assert here.process == processes.born()
    for now in (0.0, 4e9):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        monkeypatch.setattr(psutil, "boot_time", lambda now=now: now)
        assert submitter_lives(here)
    other = Submission("r", "local", {}, pid=here.pid, process=f"{str(here.process)[:9]}12345")
    assert not submitter_lives(other)  # its id was given again
    start = {"host": here.host, "pid": here.pid, "process": here.process}
    assert may_live(start)
    assert not may_live({**start, "process": other.process})
    assert may_live({**start, "host": "elsewhere", "process": other.process})


def test_a_process_that_has_ended_does_not_live() -> None:
    child = subprocess.Popen(["sleep", "30"])
    named = processes.born(child.pid)
    assert named
    assert processes.lives(child.pid, named)
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not processes.lives(child.pid, named)
    child.wait()
    assert not processes.lives(child.pid, named)


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (KeyError("uid not found"), OSError("No username set in the environment")):
        monkeypatch.setattr(getpass, "getuser", lambda error=error: (_ for _ in ()).throw(error))
        assert Submission("r", "local", {}).user == str(os.getuid())


NAMELESS = """
import getpass, os, pathlib, pwd
from blip2sweep.machine.wandb_login import logged_in
from blip2sweep.machine.processes import settle_user
from blip2sweep.results.sweeps import Submission
os.setgid(54321); os.setuid(54321)  # nobody else may look where the interpreter lies: all is imported before
for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"): os.environ.pop(name, None)
print(Submission("r", "local", {}).user)
settle_user()
print(getpass.getuser(), pathlib.Path.home(), logged_in())
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody without a name")
def test_a_container_whose_user_nobody_knows() -> None:
    """submitit, wandb and torch ask for the name, wandb and ours for the home."""
    done = subprocess.run([sys.executable, "-c", NAMELESS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "54321"
    assert done.stdout.splitlines()[1].startswith(f"54321 {tempfile.gettempdir()}/home-54321 ")


# ---- disks


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_bad_config(outputs: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ledgers.jobs()[0]
    real = store.write_atomic

    def full(path: Path, data: bytes) -> None:
        if path.parent.name == "predictions":
            try:
                raise OSError(code, os.strerror(code))
            except OSError as error:
                raise UserError(f"{path}: cannot be written ({error.strerror})") from error
        real(path, data)

    monkeypatch.setattr(store, "write_atomic", full)
    journal = Journal(outputs)
    assert run_cell(job, Dummy({}), journal, pack_data([job], "s", "full", outputs, {}), Stop()) is None
    (failed,) = Ledger(outputs).refresh().attempts[job["key"]].failed_in(["full"])
    assert failed["kind"] == "disk_full"


def test_a_full_disk_is_known_by_its_words_too() -> None:
    """safetensors and torch write by themselves."""
    assert failure_kind(RuntimeError("I/O error: No space left on device (os error 28)")) == "disk_full"
    assert failure_kind(UserError("quant.bits=0")) == "bad_config"
    assert failure_kind(MemoryError()) == "oom"


def test_rests_of_dead_writers_go_and_those_of_living_ones_stay(outputs: Path) -> None:
    here, dead = Submission("r", "local", {}).host, subprocess.Popen(["true"])
    dead.wait()
    rest = {
        f".x.json.{here}-{dead.pid}-0123abcd.tmp": (7200, False),
        f".y.json.{here}-{dead.pid}-0123abcd.tmp": (60, True),  # too young
        f".x.json.{here}-{os.getpid()}-0123abcd.tmp": (7200, True),
        ".x.json.else-where-12-0123abcd.tmp": (7200, True),
        ".y.json.else-where-12-0123abcd.tmp": (30 * 86400, False),
    }
    for folder in ("predictions", "scores", "journals", "sweeps/first", "."):
        for name, (age, _) in rest.items():
            path = outputs / folder / name
            path.touch()
            os.utime(path, (time.time() - age,) * 2)
    collect(outputs)
    for folder in ("predictions", "scores", "journals", "sweeps/first", "."):
        assert {n: (outputs / folder / n).exists() for n in rest} == {n: stays for n, (_, stays) in rest.items()}


def test_a_rename_that_commits_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is fsynced after it, and every new folder's own."""
    real, synced = os.fsync, list[str]()

    def noted(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        real(fd)

    monkeypatch.setattr(os, "fsync", noted)
    store.write_atomic(tmp_path / "a" / "b" / "x.json", b"1")
    assert synced[-1] == str(tmp_path / "a" / "b")
    assert {str(tmp_path), str(tmp_path / "a")} <= set(synced)
    synced.clear()
    Journal(tmp_path).write("result", key="k", predictions=None)
    assert str(tmp_path / "journals") in synced
