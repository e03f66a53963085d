"""How much memory there is to take, what is kept of what does not fit, and which errors mean that there is none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from blip2sweep.cache.tensors import Memo, budgets
from blip2sweep.machine import memory
from blip2sweep.machine.memory import group_bytes, is_out_of_memory, job_bytes, workers_on_gpu, workers_on_node
from blip2sweep.models.images import Images
from blip2sweep.models.load import load
from blip2sweep.models.ragged import joined
from blip2sweep.running.local import worker_env
from blip2sweep.slurm.batch_job import task_env
from blip2sweep.tasks import load_task
from tests.checkpoints import TINY, conf, tiny_config

GB = 2**30


def group(folder: Path, limit: object, current: int, cached: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{current}\n")
    (folder / "memory.stat").write_text(f"anon 5\nactive_file 7\ninactive_file {cached}\n")


def test_every_group_above_a_process_limits_it(tmp_path: Path) -> None:
    """As under Slurm: the limit is the job's, the process sits two groups further down."""
    root, listed = tmp_path / "fs", tmp_path / "cgroup"
    listed.write_text("0::/system.slice/job_7/step_0/task_0\n")
    group(root / "system.slice", "max", 90 * GB)
    group(root / "system.slice/job_7", 16 * GB, 9 * GB, cached=3 * GB)
    group(root / "system.slice/job_7/step_0/task_0", "max", 2 * GB)
    assert group_bytes(listed, root) == [10 * GB]
    group(root / "system.slice/job_7/step_0/task_0", 4 * GB, 2 * GB)
    assert sorted(group_bytes(listed, root)) == [2 * GB, 10 * GB]
    group(root, 8 * GB, 7 * GB)  # a container's own limit is at the root
    assert min(group_bytes(listed, root)) == GB


def test_groups_of_the_first_version_count_too(tmp_path: Path) -> None:
    listed, folder = tmp_path / "cgroup", tmp_path / "memory/slurm/job_7"
    listed.write_text("5:cpu,cpuacct:/elsewhere\n4:memory:/slurm/job_7\n")
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(str(6 * GB))
    (folder / "memory.usage_in_bytes").write_text(str(2 * GB))
    assert group_bytes(listed, tmp_path) == [4 * GB]


def test_a_machine_without_groups_has_no_such_limit(tmp_path: Path) -> None:
    assert group_bytes(tmp_path / "nowhere", tmp_path) == []


@pytest.mark.parametrize(
    ("env", "workers"),
    [
        ({}, 1),
        ({"SLURM_NTASKS_PER_NODE": "8"}, 8),
        ({"SLURM_TASKS_PER_NODE": "4(x2),3"}, 4),
        ({"SLURM_TASKS_PER_NODE": "4", memory.WORKERS: "2"}, 2),  # a local sweep inside an allocation
        ({memory.WORKERS: "0"}, 1),
    ],
)
def test_workers_of_a_node_share_its_memory(env: dict[str, str], workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers_on_node(env) == workers
    monkeypatch.setattr(memory, "_meminfo", lambda: 16 * GB)
    monkeypatch.setattr(memory, "group_bytes", lambda: [12 * GB, 20 * GB])
    monkeypatch.setattr(memory, "workers_on_node", lambda: workers)
    assert memory.free_host_bytes() == 12 * GB // workers


def test_the_local_launcher_says_how_many_there_are() -> None:
    assert workers_on_node(worker_env(0, [], 3)) == 3
    assert [workers_on_gpu(worker_env(i, ["0", "1"], 5)) for i in range(5)] == [3, 2, 3, 2, 3]


@pytest.mark.parametrize(
    ("tasks", "gpus", "visible", "workers"),
    [
        (8, "8", "0,1,2,3,4,5,6,7", 1),  # whole nodes
        (4, "1", "0", 4),  # one GPU for all
        (4, "2", "0,1", 2),
        (4, "4", "2", 1),  # gpus_per_task=1: each sees its own
        (3, None, "0", 3),  # an old Slurm
        (1, "8", "0,1,2,3,4,5,6,7", 1),  # one worker with a large model
    ],
)
def test_tasks_of_a_job_share_its_gpus(
    tasks: int, gpus: str | None, visible: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They compute on one device beside each other: each may remember its part of what is free there."""
    told = {"SLURM_NTASKS": str(tasks), "SLURM_NTASKS_PER_NODE": str(tasks), "CUDA_VISIBLE_DEVICES": visible}
    monkeypatch.delenv("SLURM_GPUS_ON_NODE", raising=False)
    for name, value in {**told, **({"SLURM_GPUS_ON_NODE": gpus} if gpus else {})}.items():
        monkeypatch.setenv(name, value)
    env = task_env()
    assert workers_on_gpu(env) == workers
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (80 * GB, 80 * GB))
    monkeypatch.setenv(memory.WORKERS_ON_GPU, env[memory.WORKERS_ON_GPU])
    assert budgets(torch.device("cuda"))[0] == 32 * GB // workers


@pytest.mark.parametrize(
    ("env", "left"),
    [
        ({}, []),
        ({"SLURM_MEM_PER_NODE": "32768"}, [30 * GB]),
        ({"SLURM_MEM_PER_NODE": "32768", "SLURM_NTASKS_PER_NODE": "4"}, [24 * GB]),
        ({"SLURM_MEM_PER_CPU": "4096", "SLURM_CPUS_ON_NODE": "4"}, [14 * GB]),
    ],
)
def test_what_was_asked_of_slurm_is_a_limit_where_no_group_enforces_it(
    env: dict[str, str], left: list[int], tmp_path: Path
) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t 3000000 kB\nVmRSS:\t 2097152 kB\n")
    assert job_bytes(env, tmp_path / "status") == left


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), False),
        (ValueError("not enough memory of the past"), False),
    ],
)
def test_errors_that_mean_memory(error: BaseException, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory


# ---- what does not fit


def piece(n: int = 8) -> tuple[torch.Tensor, ...]:
    return (torch.ones(n),)


def test_a_budget_that_holds_half_of_a_state_gives_half_of_the_hits() -> None:
    memo, pieces, steps = Memo(torch.device("cpu"), 0, 5 * 32), [f"a {i}" for i in range(10)], 4
    memo.expect([["a"]] * steps)
    hits = []
    for step in range(steps):
        memo.advance(step)
        hits.append(0)
        for name in pieces:
            if memo.get(name) is not None:
                hits[-1] += 1
            elif memo.remaining_uses("a"):
                memo.put(name, piece(), "a")
    assert hits == [0, 5, 5, 5]


def test_what_this_step_still_asks_for_does_not_make_room_for_a_later_one() -> None:
    memo = Memo(torch.device("cpu"), 0, 4 * 32)
    memo.expect([["a"], ["a", "b"], ["b"]])
    memo.advance(0)
    for i in range(4):
        memo.put(f"a {i}", piece(), "a")
    memo.advance(1)
    found = []
    for i in range(4):
        found.append(memo.get(f"a {i}") is not None)
        memo.put(f"b {i}", piece(), "b")
    assert found == [True] * 4
    memo.advance(2)
    assert all(memo.get(f"b {i}") for i in range(4))  # each took the place of a piece that had been used


def test_a_full_disk_keeps_pixels_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def full(_file: int, _offset: int, length: int) -> None:
        asked.append(length)
        raise OSError(errno.ENOSPC, "No space left on device")

    loaded, task = load(tiny_config(), TINY), load_task({**conf("task/shapes_caption"), "limit": 6})
    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr("blip2sweep.models.pixel_store.free_host_bytes", lambda: 0)
    images = Images(loaded, task)
    first, second = (list(images.batches(4)) for _ in range(2))
    assert asked == [6 * 3 * 48 * 48 * 4]
    assert torch.equal(joined([p.rows for p in first if p.rows is not None]).values, second[0].rows.values)
