"""Packs, workers and launchers without Slurm and without a model."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from blip2sweep.planning.packs import make_packs, pack_count, pack_data, read_pack, write_packs
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.lines import sealed
from blip2sweep.slurm.batch_job import parse_left
from blip2sweep.slurm.submit import refusal
from blip2sweep.workers.attempts import retry_mode
from blip2sweep.workers.signals import Stop
from blip2sweep.workers.worker import CELL_FAILED, Worker, duration_group, run_pack
from tests.command_line import Ran, blip2sweep, refused
from tests.composing import plan
from tests.waiting import ending, gone, wait_until

pytestmark = pytest.mark.thorough

CELLS = ["task=shapes_vqa", "task.limit=4", "part=vit,llm", "quant.bits=2,4"]
WORDS = ["backend=dummy", *CELLS]


def sweep(folder: Path, *words: str, behaviour: dict[str, Any] | None = None, **env: str) -> Ran:
    told = {"BLIP2SWEEP_DUMMY": json.dumps(behaviour or {}), **env}
    return blip2sweep("-m", *WORDS, "sweep_name=s", *words, cwd=folder, env=told)


def jobs(backend: str = "dummy") -> list[dict[str, Any]]:
    return [c.job() for c in plan(f"backend={backend}", *CELLS).todo]


# ---- packs


def test_packs_hold_every_cell_once_and_cost_about_the_same() -> None:
    made = jobs()
    seconds = {j["key"]: 1.0 + i for i, j in enumerate(made)}
    packs = make_packs(made, 2, seconds)
    assert sorted(j["key"] for p in packs for j in p) == sorted(j["key"] for j in made)
    costs = [sum(seconds[j["key"]] for j in p) for p in packs]
    assert max(costs) - min(costs) <= max(seconds.values())


def test_cells_that_share_a_part_are_neighbours() -> None:
    ordered = [j["columns"]["bits_vit"] for p in make_packs(jobs(), 1) for j in p]
    runs = [b for i, b in enumerate(ordered) if i == 0 or b != ordered[i - 1]]
    assert len(runs) == len({str(b) for b in ordered})


@pytest.mark.parametrize(
    ("total", "slots", "minutes", "most", "cells", "count"),
    [
        (36000, 8, 30, None, 1000, 32),  # four a slot
        (360000, 8, 30, None, 1000, 200),  # none longer than 30 minutes
        (600, 8, 30, None, 1000, 10),  # none shorter than a minute
        (36000, 8, 30, 10, 1000, 10),  # as many as the site allows
        (36000, 8, 30, None, 5, 5),
        (36000, 8, 0, None, 1000, 1000),  # one cell a pack
        (3, 8, 30, None, 10, 1),
    ],
)
def test_how_many_packs(total: float, slots: int, minutes: float, most: int | None, cells: int, count: int) -> None:
    assert pack_count(total, slots, minutes, most, cells) == count


def test_a_pack_says_models_and_tasks_once_and_reads_back(tmp_path: Path) -> None:
    made = jobs()
    (path,) = write_packs([made], tmp_path, "s", "r", tmp_path, {"rerun": {made[0]["key"]: ["a"], "other": ["b"]}})
    assert len(json.loads(path.read_text())["models"]) == 1
    pack = read_pack(path)
    assert pack["cells"] == made
    assert pack["settings"]["rerun"] == {made[0]["key"]: ["a"]}


def test_wall_time_that_is_left() -> None:
    assert [parse_left(t) for t in ("1-02:03:04\n", "59:01", "0:30", "UNLIMITED", "")] == [93784, 3541, 30, None, None]


def test_slurms_own_words() -> None:
    said = "sbatch: error: invalid partition specified: nope\nsbatch: error: Batch job submission failed: Invalid partition name specified\n"
    assert refusal(said) == "invalid partition specified: nope; Invalid partition name specified"
    assert refusal("no such file") is None


# ---- the worker's decisions


@pytest.mark.parametrize(
    ("failures", "verdict"),
    [
        ([], "run"),
        ([{"kind": "crash"}], "skip"),
        ([{"kind": "timeout"}], "skip"),
        ([{"kind": "crash", "fatal": True}], "run"),
        ([{"kind": "crash", "fatal": True, "signal": 9}], "half"),
        ([{"kind": "lost", "fatal": True}], "run"),
        ([{"kind": "oom"}], "half"),
        ([{"kind": "oom"}, {"kind": "oom"}], "skip"),
        ([{"kind": "crash", "fatal": True}] * 2, "skip"),
    ],
)
def test_what_a_cell_that_failed_comes_to(failures: list[dict[str, Any]], verdict: str) -> None:
    assert retry_mode(failures) == verdict


def test_a_cell_in_anothers_hand_is_left_for_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And computed when the other worker, which this one cannot see die, is not done in time."""
    monkeypatch.setattr("blip2sweep.workers.worker.PATIENCE", 1.0)
    made, other = jobs(), Journal(tmp_path)
    other.write("started", key=made[0]["key"], run="other", attempt="x")
    pack = pack_data(made, "s", "own", tmp_path, {})
    assert run_pack({**pack, "cells": made}, Journal(tmp_path)) == 0
    attempts = Ledger(tmp_path).refresh().attempts
    own = {k: a.result for k, a in attempts.items() if a.result}
    assert max(own, key=lambda k: own[k]["time"]) == made[0]["key"]


def test_a_cell_in_anothers_hand_is_waited_for_when_it_is_the_last(tmp_path: Path) -> None:
    made, other = jobs()[:1], Journal(tmp_path)
    other.write("started", key=made[0]["key"], run="other", attempt="x")
    pack = pack_data(made, "s", "own", tmp_path, {})
    theirs = threading.Timer(1, run_pack, ({**pack, "cells": made, "run": "other"}, other))
    theirs.start()
    assert run_pack({**pack, "cells": made}, Journal(tmp_path)) == 0
    theirs.join()
    assert [a.started for a in Ledger(tmp_path).refresh().attempts.values()] == [2]  # both of them the other's


@pytest.mark.parametrize(("longest", "waits"), [(0.0, False), (90.0, False), (110.0, True)])
def test_a_long_cell_is_waited_for_as_long_as_it_may_take(tmp_path: Path, longest: float, waits: bool) -> None:
    """When 120 s ago another worker was seen at it: to begin it too would compute it twice."""
    (job, *_), other = jobs(), Journal(tmp_path)
    other.write("started", key=job["key"], run="other", attempt="x")
    worker = Worker({**pack_data([job], "s", "own", tmp_path, {}), "cells": [job]}, Journal(tmp_path), Stop())
    worker._deferred[job["key"]] = time.monotonic() - 120
    worker._longest[duration_group(job)] = longest
    assert worker._waits(job, worker.ledger.refresh().attempts[job["key"]], alone=True) is waits


def test_a_cell_whose_worker_is_dead_is_not_waited_for(tmp_path: Path) -> None:
    made, gone = jobs()[:1], subprocess.Popen(["true"])
    gone.wait()
    line = {"event": "started", "key": made[0]["key"], "run": "other", "attempt": "x", "host": socket.gethostname()}
    (tmp_path / "journals").mkdir()
    (tmp_path / "journals" / "dead.jsonl").write_text(json.dumps({**line, "pid": gone.pid, "time": time.time()}) + "\n")
    start = time.monotonic()
    pack = pack_data(made, "s", "own", tmp_path, {})
    assert run_pack({**pack, "cells": made}, Journal(tmp_path)) == 0
    assert time.monotonic() - start < 30


def test_what_another_sweep_did_meanwhile_is_not_done_again(tmp_path: Path) -> None:
    made = jobs()
    pack = pack_data(made, "s", "own", tmp_path, {})
    assert run_pack({**pack, "cells": made[:2]}, Journal(tmp_path)) == 0
    assert run_pack({**pack, "cells": made, "run": "second"}, Journal(tmp_path)) == 0
    assert all(a.started == 1 for a in Ledger(tmp_path).refresh().attempts.values())


def test_clocks_that_differ_change_nothing(tmp_path: Path) -> None:
    """A worker whose clock is a day behind: its results and failures count all the same."""
    made = jobs()
    journal = Journal(tmp_path)
    pack = pack_data(made, "s", "own", tmp_path, {})
    run_pack({**pack, "cells": made[:1]}, journal)
    lines = [json.loads(x) for x in journal.path.read_text().splitlines()]
    plain = [{k: v for k, v in x.items() if k not in ("n", "crc")} for x in lines]
    journal.path.write_bytes(b"".join(sealed({**x, "time": x["time"] - 86400}, i) for i, x in enumerate(plain)))
    first = next(iter(Ledger(tmp_path).refresh().attempts[made[0]["key"]].results))
    rerun = {**pack, "cells": made[:1], "settings": {**pack["settings"], "rerun": {made[0]["key"]: [first]}}}
    assert run_pack(rerun, Journal(tmp_path)) == 0
    assert run_pack(rerun, Journal(tmp_path)) == 0
    assert Ledger(tmp_path).refresh().attempts[made[0]["key"]].started == 2


def test_a_failed_cell_is_not_tried_again_in_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLIP2SWEEP_DUMMY", json.dumps({"raise": ["vit"]}))
    made = jobs()
    pack = {**pack_data(made, "s", "own", tmp_path, {}), "cells": made}
    assert run_pack(pack, Journal(tmp_path)) == CELL_FAILED
    assert run_pack(pack, Journal(tmp_path)) == CELL_FAILED  # as after a requeue
    assert all(a.started == 1 for a in Ledger(tmp_path).refresh().attempts.values())


# ---- sweeps


def test_term_gives_the_cell_up_and_leaves_nothing_behind(tmp_path: Path) -> None:
    made = jobs()
    (path,) = write_packs([made], tmp_path / "sweeps" / "s", "s", "r", tmp_path, {})
    env = {**os.environ, "BLIP2SWEEP_DUMMY": '{"seconds": 30}'}
    command = [sys.executable, "-m", "blip2sweep.workers.worker", str(path)]
    with ending(subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)) as worker:
        wait_until(lambda: Ledger(tmp_path).refresh().attempts)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=25) == 4
    (attempts,) = Ledger(tmp_path).refresh().attempts.values()
    assert attempts.open == []
    assert not attempts.done
    assert not attempts.failures


def test_a_cell_that_kills_its_worker_twice_is_given_up_and_the_rest_goes_on(tmp_path: Path) -> None:
    ran = sweep(tmp_path, behaviour={"exit": ["llm:all:all=rtn2"]})
    assert ran.code == 1
    assert "1 of 5 cells failed: 1 crash" in ran.err
    again_ = blip2sweep("retry", cwd=tmp_path)
    assert again_.code == 0, again_.err
    assert "running 1 cells again" in again_.err
    table = pd.read_parquet(tmp_path / "outputs" / "sweeps" / "s" / "table.parquet")
    assert table["status"].tolist() == ["done"] * 5
    assert sorted(table["attempts"]) == [1, 1, 1, 1, 3]


def test_the_submitter_killed_takes_its_workers_with_it_and_status_says_lost(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "blip2sweep", "-m", *WORDS, "sweep_name=s"]
    env = {**os.environ, "BLIP2SWEEP_DUMMY": '{"seconds": 120}'}
    quiet = subprocess.DEVNULL
    with ending(subprocess.Popen(command, cwd=tmp_path, env=env, stdout=quiet, stderr=quiet)) as process:
        (begun,) = wait_until(lambda: Ledger(tmp_path / "outputs").refresh().attempts).values()
        assert "1 running" in blip2sweep("status", cwd=tmp_path).out
        process.kill()
        process.wait()
        assert begun.last_start
        pid = begun.last_start["pid"]
        wait_until(lambda: gone(pid), 30)  # long before its cell of 120 s would end
    seen = blip2sweep("status", cwd=tmp_path).out
    assert "5 lost" in seen
    assert "blip2sweep retry s" in seen


def test_plan_writes_nothing(tmp_path: Path) -> None:
    ran = blip2sweep("plan", *WORDS, cwd=tmp_path)
    assert ran.code == 0, ran.err
    for word in ("baseline", "vit:all:all=rtn2/channel", "5 cells (1 baseline), 5 to run", " hours, starting included"):
        assert word in ran.out
    assert not list(tmp_path.iterdir())
    assert sweep(tmp_path).code == 0
    assert "5 already done, 0 to run" in blip2sweep("plan", *WORDS, cwd=tmp_path).out


def test_optunas_sweeper(tmp_path: Path) -> None:
    words = [
        "-m",
        "hydra/sweeper=optuna_best",
        "hydra.sweeper.n_trials=3",
        "hydra.sweeper.n_jobs=1",
    ]
    ran = blip2sweep(
        *words, "backend=dummy", "task=shapes_vqa", "task.limit=4", "quant.bits=2,4,8", "part=vit,llm", cwd=tmp_path
    )
    assert ran.code == 0, ran.err
    assert len(list((tmp_path / "outputs" / "sweeps").iterdir())) == 3
    told = yaml.safe_load((tmp_path / "outputs" / "hydra" / "optimization_results.yaml").read_text())
    rows = pd.read_parquet(tmp_path / "outputs" / "table.parquet")
    tried = rows[rows["part"] != "none"]["vqa_accuracy"]
    assert told["best_value"] == pytest.approx(tried.max())
    assert f"best of 3 trials: vqa_accuracy {tried.max():.4g}" in ran.out


@pytest.mark.parametrize(
    "direction", [[], ["hydra.sweeper.direction=minimize"], ["hydra.sweeper.direction=[maximize,minimize]"]]
)
@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=basic"]])
def test_a_search_for_the_worst_cell_is_refused(tmp_path: Path, direction: list[str], launcher: list[str]) -> None:
    """Optuna minimises unless it is told, and would report the worst trial as the best."""
    ran = blip2sweep("-m", "hydra/sweeper=optuna", *direction, *launcher, "part=vit,llm", cwd=tmp_path)
    refused(ran, "hydra.sweeper.direction: m", "right: hydra.sweeper.direction=maximize, or hydra/sweeper=optuna_best")
    assert not (tmp_path / "outputs").exists()


def test_a_launcher_that_is_not_ours_gives_baselines_a_job_and_tells_failures(tmp_path: Path) -> None:
    ran = sweep(tmp_path, "hydra/launcher=basic", behaviour={"raise": ["llm:all:all=rtn2"]})
    assert ran.code == 1, ran.err
    assert "1 of 5 cells failed: 1 crash" in ran.err
    table = pd.read_parquet(tmp_path / "outputs" / "sweeps" / "s" / "table.parquet")
    assert len(table) == 5
    assert sweep(tmp_path, "hydra/launcher=basic").code == 0


def test_no_slurm_on_the_machine(tmp_path: Path) -> None:
    ran = sweep(tmp_path, "hydra/launcher=slurm", PATH=str(tmp_path / "empty"))  # Python may lie beside an sbatch
    assert ran.code == 2
    assert ran.err.strip().splitlines()[-1].startswith("error: no Slurm here: sbatch is not installed")
    assert not list(tmp_path.iterdir())


def test_settings_of_the_launcher_that_cannot_be_meant(tmp_path: Path) -> None:
    words = ["-m", *WORDS, "hydra/launcher=slurm"]
    refused(
        blip2sweep(*words, "hydra.launcher.timeout_min=0", cwd=tmp_path), "hydra.launcher.timeout_min=0", "1 or more"
    )
    refused(blip2sweep(*words, "hydra.launcher.nodes=2", cwd=tmp_path), "a pack runs on one node")
    refused(blip2sweep(*words, "hydra.launcher.timeout_min=1h", cwd=tmp_path), "timeout_min=1h: right: 1 or more")
    refused(
        blip2sweep(*words, "hydra.launcher.setup=module load cuda", cwd=tmp_path), "setup=module load cuda", "a list"
    )
    assert not list(tmp_path.iterdir())
