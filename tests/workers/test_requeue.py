"""A job that ends before its pack does: which stops count, who requeues it, and what several tasks in one job share."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.planning.packs import make_packs, pack_data, read_pack, share, slurm_packs, write_packs
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.slurm import batch_job as element
from blip2sweep.slurm.submit import sbatch_script
from blip2sweep.workers.requeue import REQUEUE_FILE, after_tasks, before_tasks
from blip2sweep.workers.signals import END, WALL, WARNING
from blip2sweep.workers.supervisor import Supervisor
from blip2sweep.workers.worker import run_pack
from tests.command_line import blip2sweep
from tests.planning.test_packs import jobs, sweep
from tests.waiting import ending, running, wait_until

pytestmark = pytest.mark.thorough

SETTINGS = {"signal_delay_s": 5, "max_num_timeout": 1}


def fake(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{script}\n")
    (folder / name).chmod(0o755)


class Job:
    """Runs the batch process of one pack in turns, as Slurm would; squeue says how much time is left."""

    def __init__(self, folder: Path, settings: dict[str, Any] = SETTINGS, seconds: float = 30) -> None:
        self.folder, self.again, self.turn = folder, folder / "again", 0
        (self.pack,) = write_packs([jobs()], folder / "sweeps" / "s", "s", "r", folder, settings)
        self.env = {**os.environ, "BLIP2SWEEP_DUMMY": json.dumps({"seconds": seconds}), REQUEUE_FILE: str(self.again),
                    "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "12"}  # fmt: skip

    def start(self, left: str, squeue: str = "") -> subprocess.Popen[str]:
        fake(self.folder / "bin", "squeue", squeue or f"echo {left}")
        self.again.unlink(missing_ok=True)
        command = [sys.executable, "-m", "blip2sweep.slurm.batch_job", str(self.pack)]
        env = {**self.env, "SLURM_RESTART_COUNT": str(self.turn)}
        self.turn += 1
        return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)

    def stopped(self, left: str, signum: int) -> tuple[bool, str]:
        """One turn that a signal ends with a cell in hand: whether another one is asked for, and what is said."""
        begun = self.starts()
        with ending(self.start(left)) as process:
            wait_until(lambda: self.starts() > begun)
            process.send_signal(signum)
            if signum == signal.SIGUSR2:
                self._end_cell()
            _, err = process.communicate(timeout=40)
        assert process.returncode == 4, err
        return self.again.exists(), err

    def starts(self) -> int:
        return sum(a.started for a in Ledger(self.folder).refresh().attempts.values())

    def _end_cell(self) -> None:
        """What the timer does near the end of wall time, sooner."""
        time.sleep(0.3)
        with contextlib.suppress(ProcessLookupError):  # a notice of preemption has ended it
            os.kill(self.events("started")[-1]["pid"], signal.SIGTERM)

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = [x for p in (self.folder / "journals").glob("*") for x in p.read_text().splitlines()]
        return sorted((e for e in map(json.loads, lines) if e["event"] == kind), key=lambda e: e["time"])


def test_only_stops_for_lack_of_wall_time_count(tmp_path: Path) -> None:
    """max_num_timeout=1: a notice of preemption, a preemption and a requeue by hand leave that turn to be had."""
    job = Job(tmp_path)
    assert job.stopped("1:00:00", signal.SIGUSR2)[0]  # long before the end: a notice
    assert not job.stopped("1:00:00", signal.SIGTERM)[0]  # whoever sent TERM decides what comes after
    assert not job.stopped("1:00:00", signal.SIGTERM)[0]
    assert job.stopped("1:00", signal.SIGUSR2)[0]
    again, err = job.stopped("1:00", signal.SIGUSR2)
    assert not again
    assert "not requeued after running out of wall time 2 times (hydra.launcher.max_num_timeout)" in err
    assert job.stopped("1:00:00", signal.SIGUSR2)[0]
    ended = [e["ended"] for e in job.events("worker") if "ended" in e]
    assert ended == ["notice", "preempted", "preempted", "timeout", "timeout", "notice"]


def test_several_tasks_that_ran_out_of_time_together_are_one_timeout(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    (pack,) = write_packs([jobs()], tmp_path / "sweeps" / "s", "s", "r", tmp_path, SETTINGS)
    for turn, part, told in ((0, "0/2", "timeout"), (0, "1/2", "timeout"), (1, "0/2", "notice"), (2, "1/2", "timeout")):
        journal.write("worker", sweep="s", run="r", pack=0, part=part, turn=turn, ended=told)
    journal.write("worker", sweep="s", run="other", pack=0, turn=7, ended="timeout")
    journal.write("worker", sweep="s", run="r", pack=1, turn=8, ended="timeout")
    supervisor = Supervisor(pack, {})
    supervisor.reason = "preempted"  # before it could begin
    assert supervisor.run() == 4
    assert supervisor.timeouts == 2


def test_a_signal_while_slurm_is_still_asked_for_the_time_loses_nothing(tmp_path: Path) -> None:
    with ending(Job(tmp_path).start("", squeue="kill -USR2 $PPID; sleep 0.2; echo 1:00:00")) as process:
        _, err = process.communicate(timeout=40)
    assert (process.returncode, (tmp_path / "again").exists()) == (4, True), err


@pytest.mark.parametrize(
    ("answer", "minutes", "seconds"),
    [("5:00", 60, 300), ("", 60, 3600), ("UNLIMITED", 60, None), ("", None, None)],
)
def test_when_the_job_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, minutes: int | None, seconds: int | None
) -> None:
    """Where Slurm does not answer, what was asked for counts: else USR2 at the end would be taken for a notice."""
    fake(tmp_path / "bin", "squeue", f'echo "$@" >>{tmp_path}/asked; echo {answer}')
    for name, value in {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    told = element.job_end({"timeout_min": minutes, "signal_delay_s": 9})
    assert (tmp_path / "asked").read_text() == "-h -j 12_3 -o %L\n"  # not `12`, which means every element of the array
    assert told.get(WALL) == (None if seconds is None else str(float(seconds)))
    assert (END in told) == (seconds is not None)
    assert told[WARNING] == "9"


# ---- the batch script


def script(folder: Path, setup: str, tasks: str, teardown: str = ":", **env: str) -> tuple[int, list[str]]:
    """Exit code of the batch script, and what scontrol was asked."""
    fake(folder / "bin", "scontrol", f'echo "$@" >>{folder}/asked; echo said so; exit ${{SCONTROL:-0}}')
    text = "\n".join([setup, *before_tasks(folder / "a b"), tasks, *after_tasks([teardown])])
    (folder / "a b").mkdir(exist_ok=True)
    told = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "14", **env}
    done = subprocess.run(["bash", "-c", text], env=told, capture_output=True, text=True, timeout=20)
    assert not list((folder / "a b").iterdir()), "the file that asks is taken away"
    asked = folder / "asked"
    return done.returncode, asked.read_text().splitlines() if asked.exists() else []


ASKING = f'touch "${REQUEUE_FILE}"; bash -c "exit 4"'


def test_the_batch_script_requeues_an_element_of_an_array_once(tmp_path: Path) -> None:
    array = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}
    assert script(tmp_path, "set -euo pipefail", ASKING, **array) == (4, ["requeue 12_3"])


def test_the_batch_script_requeues_a_single_job(tmp_path: Path) -> None:
    assert script(tmp_path, "", ASKING) == (4, ["requeue 14"])


def test_a_job_that_may_not_be_requeued_ends_as_its_tasks_did(tmp_path: Path) -> None:
    assert script(tmp_path, "set -e", ASKING, SCONTROL="1") == (4, ["requeue 14"])


def test_nobody_asked(tmp_path: Path) -> None:
    """A file that an earlier turn left, killed between asking and requeueing, asks for nothing."""
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "14.again").touch()
    assert script(tmp_path, "set -e", "bash -c 'exit 3'", teardown="touch gone; rm gone") == (3, [])


def test_a_sites_own_lines_stay(tmp_path: Path) -> None:
    launcher = {"setup": ["module load cuda"], "srun_args": ["--kill-on-bad-exit=1", "--mpi=none"], "timeout_min": 5}
    lines = sbatch_script(launcher, 3, tmp_path).splitlines()
    (srun,) = (line for line in lines if line.startswith("srun "))
    assert lines.index("module load cuda") < lines.index("set +e") < lines.index(srun)
    assert lines.index(srun) + 4 == lines.index("blip2sweep_code=$?"), "nothing may come between but empty lines"
    assert "--wait=0 --kill-on-bad-exit=1 --mpi=none" in srun


# ---- several tasks in one job


def test_tasks_take_neighbours_of_about_equal_cost(tmp_path: Path) -> None:
    (ordered,) = make_packs(jobs(), 1)
    seconds = {j["key"]: 8.0 if i == 0 else 2.0 for i, j in enumerate(ordered)}
    (path,) = write_packs([ordered], tmp_path, "s", "r", tmp_path, {}, seconds)
    parts = [share(read_pack(path), f"{rank}/2")["cells"] for rank in range(2)]
    assert parts == [ordered[:1], ordered[1:]]  # 8 seconds each
    many = [share(read_pack(path), f"{rank}/9")["cells"] for rank in range(9)]
    assert [job for part in many for job in part] == ordered


def test_tasks_of_a_pack_without_costs_take_equal_numbers(tmp_path: Path) -> None:
    pack = {**pack_data(jobs(), "s", "r", tmp_path, {}), "cells": jobs()}
    parts = [[j["key"] for j in share(pack, f"{rank}/2")["cells"]] for rank in range(2)]
    assert sorted(map(len, parts)) == [2, 3]
    assert parts[0] + parts[1] == [j["key"] for j in jobs()]


def test_a_pack_has_work_for_all_tasks_of_its_job() -> None:
    """pack_minutes is how long a job takes, not how much its tasks do together."""
    made = jobs()
    seconds = {j["key"]: 120.0 for j in made}
    launcher = {"array_parallelism": 1, "pack_minutes": 2, "timeout_min": 60}
    assert [len(p) for p in slurm_packs(made, launcher, seconds)] == [1] * 5
    assert sorted(len(p) for p in slurm_packs(made, {**launcher, "tasks_per_node": 2}, seconds)) == [2, 3]


# ---- a worker that hears nothing


@pytest.mark.parametrize(("begun", "kinds"), [(1.0, ["timeout"]), (60.0, [])])
def test_a_cell_that_had_the_whole_wall_time_is_a_timeout_though_its_worker_had_to_be_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: float, kinds: list[str]
) -> None:
    (pack,) = write_packs([jobs()], tmp_path / "sweeps" / "s", "s", "r", tmp_path, SETTINGS)
    monkeypatch.setenv(END, str(time.time() + 100 - begun))
    monkeypatch.setenv(WALL, "100")
    monkeypatch.setenv("BLIP2SWEEP_DUMMY", '{"seconds": 30, "deaf": true}')
    monkeypatch.setattr("blip2sweep.workers.supervisor.STUCK_SECONDS", 0.5)
    supervisor = Supervisor(pack, dict(os.environ))
    with running(supervisor) as codes:
        wait_until(lambda: Ledger(tmp_path).refresh().attempts)
        time.sleep(0.3)  # by now it hears nothing
        supervisor.stop(signal.SIGTERM, "timeout")
        assert wait_until(lambda: codes, 25) == [4]
    (attempts,) = Ledger(tmp_path).refresh().attempts.values()
    assert [f["kind"] for f in attempts.failures] == kinds
    assert attempts.open == []


# ---- what workers warn of


def test_what_workers_warn_of_is_told_by_the_sweep_and_by_status(tmp_path: Path) -> None:
    told = "on 2 of 2 workers: cache could not be written: No space left on device"
    ran = sweep(tmp_path, "hydra.launcher.workers=2", behaviour={"warning": told.partition(": ")[2]})
    assert ran.code == 0, ran.err
    assert f"warning: {told}" in ran.err
    assert told in blip2sweep("status", cwd=tmp_path).out


def test_a_store_that_cannot_be_written_is_a_line_of_the_ledger(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = {"cache": "disk", "cache_dir": str(tmp_path / "file" / "cache"), "device": "cpu"}
    these = jobs("torch")
    pack = {**pack_data(these, "s", "r", tmp_path, settings), "cells": these[:2]}
    with pytest.warns(UserWarning, match="cannot be written"):
        assert run_pack(pack, Journal(tmp_path)) == 0
    told = [w["warning"] for w in Ledger(tmp_path).refresh().workers]
    assert told == ["cache could not be written: Not a directory"]
