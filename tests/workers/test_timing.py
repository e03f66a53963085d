"""A worker times what is done, whatever befalls that; it computes nothing for it and loses nothing by it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.backends.dummy import Dummy
from blip2sweep.errors import UserError
from blip2sweep.planning.packs import pack_data, write_packs
from blip2sweep.results.latency import LOST, PREEMPTED
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.wire.pack import Settings
from blip2sweep.workers import signals
from blip2sweep.workers.signals import Stop
from blip2sweep.workers.supervisor import Supervisor
from blip2sweep.workers.worker import BROKEN, STOPPED, run_pack
from tests import ledgers
from tests.waiting import ending, wait_until

WORDS = ("backend=dummy", *ledgers.WORDS)


@pytest.fixture(scope="module")
def jobs() -> list[dict[str, Any]]:
    return ledgers.jobs(*WORDS)[:3]


@pytest.fixture(scope="module")
def _made(jobs: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    assert run(folder, jobs, "first", latency=[]) == 0
    assert told(folder, "latency") == []
    return folder


@pytest.fixture
def done(_made: Path, tmp_path: Path) -> Path:
    """A folder where all cells are done and scored, and none is timed."""
    return Path(shutil.copytree(_made, tmp_path / "outputs"))


def run(output_dir: Path, jobs: list[dict[str, Any]], name: str = "r", stop: Stop | None = None, **told: Any) -> int:
    """A pack whose cells are all to be timed."""
    settings: Settings = {"latency": [j["key"] for j in jobs], **told}  # type: ignore[typeddict-item]
    pack = pack_data(jobs, "s", name, output_dir, settings)
    journal = Journal(output_dir)
    try:
        return run_pack({**pack, "cells": jobs}, journal, stop)  # type: ignore[typeddict-item]
    finally:
        journal.close()


def behave(monkeypatch: pytest.MonkeyPatch, **behaviour: Any) -> None:
    monkeypatch.setenv("BLIP2SWEEP_DUMMY", json.dumps(behaviour))


def events(output_dir: Path) -> list[dict[str, Any]]:
    lines = [json.loads(x) for p in (output_dir / "journals").iterdir() for x in p.read_text().splitlines()]
    return sorted(lines, key=lambda x: x["time"])


def told(output_dir: Path, event: str) -> list[str]:
    return [x["key"] for x in events(output_dir) if x["event"] == event]


def tries(output_dir: Path, key: str) -> list[str]:
    return [line["kind"] for line in Ledger(output_dir).refresh().attempts[key].untimed]


@pytest.mark.thorough
def test_cells_are_timed_when_all_are_computed(tmp_path: Path, jobs: list[dict[str, Any]]) -> None:
    assert run(tmp_path, jobs) == 0
    order = [x["event"] for x in events(tmp_path) if x["event"] in ("result", "latency")]
    assert order == ["result"] * 3 + ["latency"] * 6
    for job in jobs:
        found = Ledger(tmp_path).refresh().attempts[job["key"]].latency.values()
        assert sorted(x["batch"] for x in found) == [1, 8]
        assert {(x["run"], x["sweep"], x["generation"]) for x in found} == {("r", "s", 0)}


def test_what_is_done_is_timed_without_inference(done: Path, jobs: list[dict[str, Any]]) -> None:
    assert run(done, jobs, "later") == 0
    assert len(told(done, "started")) == len(told(done, "result")) == 3
    assert len(told(done, "latency")) == 6


def test_only_the_cells_that_are_named_are_timed(done: Path, jobs: list[dict[str, Any]]) -> None:
    assert run(done, jobs, latency=[jobs[1]["key"]]) == 0
    assert set(told(done, "latency")) == {jobs[1]["key"]}


def test_what_another_launch_timed_here_meanwhile_is_not_timed_again(
    done: Path, jobs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(done, jobs) == run(done, jobs, "later") == 0
    assert len(told(done, "latency")) == 6
    behave(monkeypatch, device_name="another")
    assert run(done, jobs, "elsewhere") == 0
    found = Ledger(done).refresh().attempts[jobs[0]["key"]].latency
    assert len(found) == 4
    assert {x["generation"] for x in found.values()} == {0, 1}


@pytest.mark.thorough
def test_a_cell_that_is_computed_again_is_timed_again(tmp_path: Path, jobs: list[dict[str, Any]]) -> None:
    assert run(tmp_path, jobs) == 0
    key = jobs[0]["key"]
    rerun = {key: sorted(Ledger(tmp_path).refresh().attempts[key].results)}
    assert run(tmp_path, jobs[:1], "again", rerun=rerun) == 0
    assert {x["run"] for x in Ledger(tmp_path).refresh().attempts[key].latency.values()} == {"again"}


# ---- what goes wrong


def test_a_cell_that_cannot_be_timed_stays_done_and_the_others_are_timed(
    done: Path, jobs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    word = jobs[1]["columns"]["recipe"]
    behave(monkeypatch, untimed=[word])
    assert run(done, jobs) == 0  # in the run's eyes nothing failed
    assert tries(done, jobs[1]["key"]) == [LOST, "crash"]
    assert Ledger(done).refresh().done(jobs[1]["key"])
    assert set(told(done, "latency")) == {jobs[0]["key"], jobs[2]["key"]}
    behave(monkeypatch)
    assert run(done, jobs) == 0  # the same launch, as after a requeue, does not try again
    assert len(tries(done, jobs[1]["key"])) == 2
    assert run(done, jobs, "retry") == 0
    assert jobs[1]["key"] in told(done, "latency")


@pytest.mark.thorough
def test_a_failed_cell_is_not_timed(
    tmp_path: Path, jobs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    behave(monkeypatch, **{"raise": [jobs[2]["columns"]["recipe"]]})
    assert run(tmp_path, jobs) == 3
    assert set(told(tmp_path, "latency")) == {jobs[0]["key"], jobs[1]["key"]}


def test_a_full_disk_while_timing_costs_the_latency_alone(
    done: Path, jobs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise UserError("ledger: cannot be written (No space left on device)")

    def fails(self: Journal, event: str, **fields: object) -> None:
        full() if event == "untimed" else write(self, event, **fields)

    write = Journal.write
    monkeypatch.setattr(Journal, "write", fails)
    assert run(done, jobs) == 0
    assert told(done, "latency") == []
    assert len(Ledger(done).refresh().results()) == 3


def test_a_broken_device_ends_the_process_and_another_goes_on(
    done: Path, jobs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Dummy, job: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with monkeypatch.context() as inside:
        inside.setattr(Dummy, "measure", broken)
        assert run(done, jobs) == BROKEN
    assert tries(done, jobs[0]["key"]) == [LOST, "crash"]
    assert run(done, jobs) == 0
    assert set(told(done, "latency")) == {jobs[1]["key"], jobs[2]["key"]}


def test_a_process_that_dies_of_it_is_followed_by_one_that_goes_on(done: Path, jobs: list[dict[str, Any]]) -> None:
    settings: Settings = {"latency": [j["key"] for j in jobs]}
    (path,) = write_packs([jobs], done / "sweeps" / "s", "s", "r", done, settings)  # type: ignore[list-item]
    env = {**os.environ, "BLIP2SWEEP_DUMMY": json.dumps({"dies_timed": [jobs[0]["columns"]["recipe"]]})}
    with (done / "log").open("wb") as log:
        assert Supervisor(path, env, log).run() == 0
    assert tries(done, jobs[0]["key"]) == [LOST]
    assert len(told(done, "started")) == 3
    assert set(told(done, "latency")) == {jobs[1]["key"], jobs[2]["key"]}


def test_term_while_timing_is_no_try_and_the_next_turn_goes_on(done: Path, jobs: list[dict[str, Any]]) -> None:
    settings: Settings = {"latency": [j["key"] for j in jobs]}
    (path,) = write_packs([jobs], done / "sweeps" / "s", "s", "r", done, settings)  # type: ignore[list-item]
    env = {**os.environ, "BLIP2SWEEP_DUMMY": '{"timed_seconds": 60}'}
    command = [sys.executable, "-m", "blip2sweep.workers.worker", str(path)]
    with ending(subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)) as worker:
        wait_until(lambda: told(done, "untimed"))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=25) == STOPPED
    assert tries(done, jobs[0]["key"]) == [LOST, PREEMPTED]
    assert run(done, jobs) == 0
    assert len(told(done, "latency")) == 6


def test_nothing_is_timed_that_would_not_end_in_the_wall_time(
    done: Path, jobs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    behave(monkeypatch, timed_seconds=0.2)
    monkeypatch.setenv(signals.END, str(time.time() + 1e6))
    monkeypatch.setenv(signals.END, str(time.time() + 0.1))
    assert run(done, jobs) == STOPPED  # the first of a process begins in any case
    assert set(told(done, "latency")) == {jobs[0]["key"]}


def test_a_worker_that_is_told_to_end_times_nothing_more(done: Path, jobs: list[dict[str, Any]]) -> None:
    stop = Stop()
    stop.reason = "preempted"
    assert run(done, jobs, stop=stop) == STOPPED
    assert told(done, "untimed") == []
