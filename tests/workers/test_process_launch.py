"""How many processes a cell gets: what is refused before anything is written, and which GPUs each process has."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from blip2sweep.backends.dummy import Dummy
from blip2sweep.errors import UserError
from blip2sweep.machine import devices
from blip2sweep.machine.devices import divided, groups, visible_gpus
from blip2sweep.machine.memory import workers_on_gpu, workers_on_node
from blip2sweep.planning.packs import read_pack
from blip2sweep.planning.processes import check_divisible, checked_processes
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.sweeps import find_sweep
from blip2sweep.running.local import worker_env
from blip2sweep.slurm.batch_job import task_env
from blip2sweep.slurm.settings import check_gpus, checked_launcher, gpus_of
from blip2sweep.slurm.submit import batch_script
from tests.command_line import blip2sweep, refused
from tests.planning.test_packs import WORDS, jobs
from tests.workers.test_requeue import Job

SLURM = ("hydra/launcher=slurm", "hydra.launcher.processes_per_cell=2")


# ---- bad input


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["hydra.launcher.processes_per_cell=0"], "processes_per_cell=0: right: 1 or more"),
        (["plan", "hydra.launcher.processes_per_cell=5"], "processes_per_cell=5: task shapes_vqa has 2 images, and a process needs one; right: 2 or fewer"),
        ([*SLURM], "processes_per_cell=2: 1 task of 2 processes need 2 GPUs a node, and 1 is asked for; right: hydra.launcher.gpus_per_node=2"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_leaves_nothing(tmp_path: Path, words: list[str], told: str) -> None:
    refused(blip2sweep(*words[:1], "-m", *WORDS, *words[1:], cwd=tmp_path), told)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2", "two", [2]])
def test_a_number_of_processes_is_a_positive_integer(value: object) -> None:
    with pytest.raises(UserError, match="right: 1 or more, the processes that share a cell's images"):
        checked_processes(value)


def test_the_number_of_processes_is_one_by_default() -> None:
    assert [checked_processes(v) for v in (None, 1, 4)] == [1, 1, 4]


def test_a_task_that_compares_all_with_all_is_not_divided() -> None:
    task = SimpleNamespace(name="retrieval", rules=SimpleNamespace(REQUESTS=("match",)), images={1: "", 2: ""})
    cells: Any = [SimpleNamespace(task=task)]
    check_divisible(cells, 1)
    with pytest.raises(UserError, match="task retrieval compares every picture with every text; right: 1"):
        check_divisible(cells, 2)


# ---- GPUs on this machine


@pytest.mark.parametrize(
    ("gpus", "workers", "processes", "spread", "found"),
    [
        ("", None, 2, False, []),
        ("0,1,2", None, 1, False, ["0", "1", "2"]),
        ("0,1", 5, 1, False, ["0", "1"]),  # workers take them in turn
        ("0,1,2,3", None, 2, False, ["0,1", "2,3"]),
        ("4,5", None, 2, False, ["4,5"]),
        ("0,1,2,3", 2, 2, False, ["0,1", "2,3"]),
        ("0,1,2,3", None, 1, True, ["0,1,2,3"]),  # a model that takes all of them
        ("0,1,2,3", 2, 1, True, ["0,1", "2,3"]),
        ("0,1,2,3", None, 2, True, ["0,1,2,3"]),  # and two of it
    ],
)
def test_workers_have_equal_groups_of_gpus(
    gpus: str, workers: int | None, processes: int, spread: bool, found: list[str]
) -> None:
    assert groups([g for g in gpus.split(",") if g], workers, processes, spread) == found


@pytest.mark.parametrize(
    ("there", "workers", "processes", "spread", "right"),
    [(3, None, 2, False, "2"), (2, None, 3, False, "3"), (4, 1, 2, False, "2"), (4, None, 3, True, "a multiple of 3"),
     (1, None, 2, True, "a multiple of 2"), (4, 3, 1, True, "a multiple of 3")],
)  # fmt: skip
def test_gpus_that_cannot_be_divided_are_refused(
    there: int, workers: int | None, processes: int, spread: bool, right: str
) -> None:
    with pytest.raises(UserError, match=f"and {there} GPUs?; right: {right} GPUs in CUDA_VISIBLE_DEVICES"):
        groups([str(i) for i in range(there)], workers, processes, spread)


def test_processes_of_a_cell_take_its_gpus_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VISIBLE, "4,5,6,7")
    assert visible_gpus() == ["4", "5", "6", "7"]
    assert divided(visible_gpus(), 2) == ["4,5", "6,7"]
    assert divided([], 2) == []
    with pytest.raises(
        UserError, match=r"4 GPUs are visible here \(4,5,6,7\); right: a number of processes that divides"
    ):
        divided(visible_gpus(), 3)


def test_processes_share_the_memory_and_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    env = worker_env(1, ["0,1", "2,3"], 2, 2)
    assert workers_on_node(env) == 4
    assert (env["OMP_NUM_THREADS"], env[devices.VISIBLE], workers_on_gpu(env)) == ("4", "2,3", 1)


# ---- GPUs of a Slurm job


@pytest.mark.parametrize(
    ("settings", "gpus"),
    [
        ({"gpus_per_node": 4}, 4),
        ({"gpus_per_node": "a100:4"}, 4),
        ({"gpus_per_node": None, "gres": "gpu:a100:2,nvme:1"}, 2),
        ({"gpus_per_node": None, "gres": "nvme:1"}, None),
        ({"gpus_per_node": None}, None),
        ({"gpus_per_task": 2, "tasks_per_node": 3}, 6),
    ],
)
def test_the_gpus_of_a_job_are_those_that_it_asks_for(settings: dict[str, Any], gpus: int | None) -> None:
    assert gpus_of(checked_launcher(settings)) == gpus


def launcher(gpus: int | None, tasks: int, processes: int) -> Any:
    return checked_launcher({"gpus_per_node": gpus, "tasks_per_node": tasks, "processes_per_cell": processes})


def test_tasks_times_processes_are_the_gpus() -> None:
    plain = jobs()
    large: Any = [{**j, "model": {**j["model"], "device_map": "auto"}} for j in plain]
    for given in ((4, 2, 2), (1, 4, 1), (None, 1, 2), (2, 1, 2)):
        check_gpus(launcher(*given), plain)
    check_gpus(launcher(8, 2, 2), large)
    for given, these, right in (
        ((8, 2, 2), plain, "gpus_per_node=4"),
        ((2, 2, 2), plain, "gpus_per_node=4"),
        ((6, 2, 2), large, "gpus_per_node=4 or a multiple, which model.device_map divides"),
        ((0, 1, 2), large, "gpus_per_node=2 or"),
    ):
        with pytest.raises(UserError, match=f"right: hydra.launcher.{right}"):
            check_gpus(launcher(*given), these)


@pytest.mark.parametrize(
    ("tasks", "on_node", "visible", "local", "processes", "spread", "own"),
    [
        (1, "2", "0,1", 0, 2, False, "0,1"),
        (2, "4", "0,1,2,3", 1, 2, False, "2,3"),
        (2, "4", "2,3", 1, 2, False, "2,3"),  # gpus_per_task: each sees its own
        (2, "4", "0,1,2,3", 1, 1, True, "2,3"),
        (2, "4", "0,1,2,3", 1, 1, False, "1"),
    ],
)
def test_a_task_has_the_gpus_of_its_processes(
    tasks: int, on_node: str, visible: str, local: int, processes: int, spread: bool, own: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    told = {"SLURM_NTASKS": tasks, "SLURM_NTASKS_PER_NODE": tasks, "SLURM_GPUS_ON_NODE": on_node,
            "SLURM_LOCALID": local, devices.VISIBLE: visible}  # fmt: skip
    for name, value in told.items():
        monkeypatch.setenv(name, str(value))
    env = task_env(processes, spread)
    assert env[devices.VISIBLE] == own
    assert workers_on_node(env) == tasks * processes
    assert workers_on_gpu(env) == 1


def test_sbatch_does_not_hear_of_it(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    told = {"tasks_per_node": 1, "gpus_per_node": 2, "name": "b", "timeout_min": 5}
    text = batch_script(checked_launcher({**told, "processes_per_cell": 2}), tmp_path, "c", "run", 1)
    assert "processes" not in text


# ---- commands


@pytest.mark.thorough
def test_a_sweep_has_the_keys_of_one_process_and_retry_runs_as_many(tmp_path: Path) -> None:
    words = ["-m", *WORDS, "hydra.launcher.processes_per_cell=2", "sweep_name=s"]
    failing = {"BLIP2SWEEP_DUMMY": json.dumps({"raise": ["vit:all:all=rtn2"]})}
    assert blip2sweep(*words, cwd=tmp_path, env=failing).code == 1
    output = tmp_path / "outputs"
    first = Ledger(output).refresh().attempts
    (failed,) = [f for a in first.values() for f in a.failures]
    assert (failed["kind"], failed["error"].startswith("told to raise")) == ("crash", True)
    assert blip2sweep("retry", "s", cwd=tmp_path).code == 0
    assert [s.launcher.get("processes_per_cell") for s in find_sweep(output, "s").submissions] == [2, 2]
    attempts = Ledger(output).refresh().attempts
    assert attempts.keys() == {job["key"] for job in jobs()}
    table = pd.read_parquet(output / "sweeps" / "s" / "table.parquet").set_index("key")
    assert set(table["processes"]) == {2}
    for job in jobs():
        result = attempts[job["key"]].result
        assert result is not None
        assert result["predictions"] == Dummy({})(job).predictions.hash


@pytest.mark.thorough
def test_a_job_of_slurm_runs_its_cells_in_several_processes(tmp_path: Path) -> None:
    job = Job(tmp_path, {"signal_delay_s": 5, "max_num_timeout": 1, "processes": 2}, seconds=0)
    assert read_pack(job.pack)["settings"]["processes"] == 2
    _, err = job.start("1:00:00").communicate(timeout=60)
    found = Ledger(tmp_path).refresh().attempts
    assert found, err
    assert all(a.result and a.result["cost"]["processes"] == 2 for a in found.values())
