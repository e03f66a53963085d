"""What goes wrong around cells, without Slurm and without a model: each is told, and costs no more than it must."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from blip2sweep.commands.finish import check_all_done, why_lost
from blip2sweep.commands.run_one import in_hand
from blip2sweep.errors import SweepFailed
from blip2sweep.files import write_json
from blip2sweep.planning.packs import pack_path
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.lines import sealed
from blip2sweep.results.predictions import stem
from blip2sweep.results.sweeps import Submission, Sweep, find_sweep
from blip2sweep.results.unscored import scored
from blip2sweep.running.queue import QueueState
from blip2sweep.running.status import sweep_status
from blip2sweep.slurm.settings import with_time_to_work
from blip2sweep.slurm.submit import throttled, write_merged
from blip2sweep.workers.run_cell import run_cell
from blip2sweep.workers.signals import Stop, Stopped
from tests.command_line import blip2sweep
from tests.composing import plan
from tests.planning.test_packs import WORDS, sweep
from tests.waiting import ending, wait_until

pytestmark = pytest.mark.thorough


def test_a_device_beyond_use_ends_the_process_and_not_the_pack(tmp_path: Path) -> None:
    """After a device-side assert all that a process does on its GPU fails: the next cells get a new one. The cell is tried
    once more, because another one may have broken it in its turn."""
    ran = sweep(tmp_path, behaviour={"break": ["llm:all:all=rtn2"]})
    assert ran.code == 1
    assert "1 of 5 cells failed: 1 crash" in ran.err
    assert "device-side assert" in ran.err
    lines = [x for p in (tmp_path / "outputs" / "journals").glob("*") for x in p.read_text().splitlines()]
    events = [json.loads(x) for x in lines]
    assert len({e["pid"] for e in events if e["event"] == "started"}) == 3
    assert sum(e["event"] == "started" for e in events) == 6


def test_why_workers_cannot_run_is_told(tmp_path: Path) -> None:
    in_workers = "import sys\nif 'blip2sweep.workers.worker' in sys.orig_argv:\n    sys.modules['blip2sweep.backends.dummy'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(in_workers)
    ran = sweep(tmp_path, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert ran.code == 1
    assert "ModuleNotFoundError: import of blip2sweep.backends.dummy halted" in ran.err.splitlines()[-1]


def test_a_cell_that_fails_again_under_rerun_is_a_failure(tmp_path: Path) -> None:
    assert sweep(tmp_path).code == 0
    key = next(c.key for c in plan(*WORDS).todo if c.columns()["recipe"] == "llm:all:all=rtn2/channel")
    ran = sweep(tmp_path, "--rerun", key, behaviour={"raise": ["llm:all:all=rtn2"]})
    assert ran.code == 1, ran.err
    assert "1 of 5 cells failed: 1 crash" in ran.err


def test_results_without_scores_are_scored_at_the_end_or_told(tmp_path: Path) -> None:
    """A worker that is killed between commit and score leaves a cell with a result and no metrics."""
    assert sweep(tmp_path).code == 0
    outputs, scores = tmp_path / "outputs", tmp_path / "outputs" / "scores"
    before = {p.name for p in scores.iterdir()}
    next(scores.iterdir()).unlink()
    waited = blip2sweep("wait", cwd=tmp_path)
    assert waited.code == 0, waited.err
    assert {p.name for p in scores.iterdir()} == before
    next(scores.iterdir()).unlink()
    for pack in (outputs / "sweeps" / "s" / "packs").iterdir():
        pack.write_text(pack.read_text().replace('"data_dir":"', '"data_dir":"/gone/'))
    waited = blip2sweep("wait", cwd=tmp_path)
    assert waited.code == 1
    assert "1 of 5 cells is done and not scored" in waited.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("setting", "told"),
    [("+hydra.launcher.speed=fast", "speed"), ("hydra.launcher.mem_gb=64GB", "hydra.launcher")],
)
def test_a_setting_that_no_launcher_knows(tmp_path: Path, setting: str, told: str) -> None:
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho MaxArraySize = 9\n")
    (tmp_path / "scontrol").chmod(0o755)
    ran = sweep(tmp_path, "hydra/launcher=slurm", setting, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert ran.code == 2, ran.err
    assert told in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err


def test_a_short_job_is_not_signalled_at_its_start() -> None:
    assert with_time_to_work({"signal_delay_s": 120, "timeout_min": 1})["signal_delay_s"] == 15
    assert with_time_to_work({"signal_delay_s": 120, "timeout_min": 60})["signal_delay_s"] == 120


def test_optuna_is_told_of_a_failed_cell_in_one_line(tmp_path: Path) -> None:
    words = ["-m", "hydra/sweeper=optuna_best", "hydra.sweeper.n_trials=1", "hydra.sweeper.n_jobs=1"]
    env = {"BLIP2SWEEP_DUMMY": json.dumps({"raise": ["llm"]})}
    ran = blip2sweep(
        *words, "backend=dummy", "task=shapes_vqa", "task.limit=4", "quant.bits=2,4", "part=llm", cwd=tmp_path, env=env
    )
    assert ran.code == 1, ran.err
    assert "Traceback" not in ran.err
    assert "told to raise" in ran.err.splitlines()[-1]


def test_a_folder_that_the_nodes_do_not_share_is_suspected(tmp_path: Path) -> None:
    """Jobs came and went, and neither the ledger nor the logs hold a line of theirs."""
    sweep = Sweep("s", "command", 0.0, ["0" * 12], [], submissions=[Submission("run", "slurm", {}, 1)])
    sweep.write(tmp_path)
    told = why_lost(tmp_path, sweep)
    assert told is not None
    assert told.endswith("is output_dir on a file system that the nodes share?")
    with pytest.raises(SweepFailed, match=r"1 of 1 cell failed: 1 lost; .* that the nodes share\?"):
        check_all_done(tmp_path, sweep)


def test_what_was_stopped_is_told_how_to_go_on(tmp_path: Path) -> None:
    """Nothing went wrong: the cells were not reached."""
    sweep = Sweep("s", "command", 0.0, ["0" * 12], [])
    with pytest.raises(SweepFailed, match=r"1 lost; .*; right: `blip2sweep retry s` runs them again$"):
        check_all_done(tmp_path, sweep)


# ---- what is said of a sweep


@pytest.mark.parametrize(
    ("begun", "packs", "known", "state"),
    [
        ("new", {("new", 0): "running"}, True, "running"),
        ("old", {("new", 0): "running"}, True, "queued"),  # its process died without a word
        ("new", {("new", 0): "queued"}, True, "queued"),  # as did that of a node which failed
        ("new", {}, True, "lost"),
        ("new", {}, False, "running"),
    ],
)
def test_a_cell_is_running_where_its_own_pack_is(
    tmp_path: Path, begun: str, packs: dict[tuple[str, int], str], known: bool, state: str
) -> None:
    sweep = Sweep(
        "s", "command", 0.0, ["0" * 12], [], submissions=[Submission(r, "slurm", {}, 1) for r in ("old", "new")]
    )
    for run in ("old", "new"):
        write_json(pack_path(sweep.folder(tmp_path), run, 0), {"cells": [{"key": "0" * 12}]})
    Journal(tmp_path).write("started", key="0" * 12, sweep="s", run=begun, attempt="x")
    status = sweep_status(tmp_path, sweep, Ledger(tmp_path, brief=True), QueueState(known, packs))
    assert status.states == {"0" * 12: state}


def test_what_was_computed_again_is_scored_when_its_own_statistics_are_there(tmp_path: Path) -> None:
    """Not when those of the result that no longer counts are."""
    key = "0" * 12
    sweep = Sweep("s", "command", 0.0, [key], [], rerun={key: ["first"]})
    journal = Journal(tmp_path)
    (tmp_path / "scores").mkdir()
    for attempt, name in (("first", "aa"), ("second", "bb")):
        write_json(tmp_path / "predictions" / f"{stem(key, name)}.json", {})
        journal.write("result", key=key, attempt=attempt, predictions=name)
    (tmp_path / "scores" / f"{stem(key, 'aa')}.npz").touch()
    assert not scored(tmp_path, sweep)
    (tmp_path / "scores" / f"{stem(key, 'bb')}.npz").touch()
    assert scored(tmp_path, sweep)


def test_a_submitter_that_waits_for_a_limit_does_not_forget_a_retry(tmp_path: Path) -> None:
    first = Sweep("s", "command", 0.0, ["0" * 12], [], submissions=[Submission("one", "slurm", {}, 2)])
    write_merged(first, tmp_path)
    retry = find_sweep(tmp_path, "s")
    retry.submissions.append(Submission("two", "slurm", {}, 1))
    write_merged(retry, tmp_path)
    first.submissions[0].arrays.append({"job": "12", "first": 0, "count": 2})
    write_merged(first, tmp_path)
    found = find_sweep(tmp_path, "s")
    assert found.runs == ["one", "two"]
    assert found.submissions[0].arrays == first.submissions[0].arrays


def test_arrays_beside_each_other_run_no_more_packs_than_one_would() -> None:
    assert throttled({"array_parallelism": 32}, 1000, 1001)["array_parallelism"] == 32
    assert throttled({"array_parallelism": 32}, 1002, 1001)["array_parallelism"] == 16
    assert throttled({"array_parallelism": 2}, 5000, 1001)["array_parallelism"] == 1


def test_a_baseline_that_died_in_the_hand_of_another_is_run(tmp_path: Path) -> None:
    """By a launcher of one job a cell: it asks whether somebody is at it, not whether somebody ever was."""
    here = socket.gethostname()
    gone = subprocess.Popen(["true"])
    gone.wait()
    Journal(tmp_path).write("started", key="a", attempt="x")
    dead = {"event": "started", "time": time.time(), "host": here, "pid": gone.pid, "key": "b", "attempt": "y"}
    (tmp_path / "journals" / "dead.jsonl").write_bytes(sealed(dead, 0))
    ledger = Ledger(tmp_path).refresh()
    assert in_hand(ledger, "a")
    assert not in_hand(ledger, "b")
    assert ledger.attempts["b"].open
    assert not in_hand(ledger, "c")


def test_a_sweep_in_the_background_of_a_script_is_cancelled(tmp_path: Path) -> None:
    """A shell without job control has such processes ignore Ctrl-C."""
    words = [sys.executable, "-m", "blip2sweep", "-m", *WORDS, "sweep_name=s"]
    env = {**os.environ, "BLIP2SWEEP_DUMMY": '{"seconds": 120}'}
    command = ["bash", "-c", 'trap "" INT; exec "$@"', "bash", *words]
    with ending(subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)) as process:
        wait_until(lambda: Ledger(tmp_path / "outputs").refresh().attempts)
        assert "cancelled" in blip2sweep("cancel", cwd=tmp_path).err
        _, err = process.communicate(timeout=25)
    assert process.returncode == 130, err
    assert "finished cells are kept" in err
    assert "5 lost" in blip2sweep("status", cwd=tmp_path).out


def test_a_finished_sweep_that_nobody_measured_is_waited_for(tmp_path: Path) -> None:
    """Scorers may be killed after they scored, or the baseline of another pack may come last."""
    assert sweep(tmp_path).code == 0
    before = pd.read_parquet(tmp_path / "outputs" / "table.parquet")
    for path in (tmp_path / "outputs" / "journals").iterdir():
        kept = [x for x in path.read_text().splitlines(keepends=True) if not x.startswith('{"event":"measured"')]
        path.write_text("".join(kept))
    waited = blip2sweep("wait", cwd=tmp_path)
    assert waited.code == 0, waited.err
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "outputs" / "table.parquet"), before)


def test_what_fails_once_the_job_is_ended_is_given_up_and_no_failure(tmp_path: Path) -> None:
    """Slurm signals every process: a loader's child may be gone before its parent hears of it."""
    stop, journal = Stop(), Journal(tmp_path)
    job = {"key": "a" * 12, "columns": {}, "baseline": "b" * 12}

    def run(_: object) -> None:
        stop._interruptible = False  # as after the handler's own raise was swallowed on the way
        stop._on_term()
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated")

    with pytest.raises(Stopped):
        run_cell(job, run, journal, {"output_dir": str(tmp_path), "sweep": "s", "run": "r"}, stop)  # type: ignore[arg-type]
    events = [json.loads(x) for x in journal.path.read_text().splitlines()]
    assert [(e["event"], e.get("reason")) for e in events] == [("started", None), ("requeued", "preempted")]
