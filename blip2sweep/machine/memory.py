"""How much memory this process may use, and which errors mean that memory ran out. No torch here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

WORKERS = "BLIP2SWEEP_WORKERS_ON_NODE"  # the local launcher sets it for its workers
WORKERS_ON_GPU = "BLIP2SWEEP_WORKERS_ON_GPU"  # number of workers of the launcher that share this GPU
GROUPS = Path("/sys/fs/cgroup")
# By cgroup version: the files of the limit and the use, and the line of memory.stat with the file pages that the kernel
# can reclaim.
FILES = {
    "v2": ("memory.max", "memory.current", "inactive_file"),
    "v1": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
# Texts in a RuntimeError of the CPU's allocator, CUDA's runtime, cuBLAS and cuDNN.
OUT_OF_MEMORY = (
    "DefaultCPUAllocator", "not enough memory", "can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is a MemoryError, torch's OutOfMemoryError, or a library's RuntimeError that means the same."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def free_host_bytes() -> int:
    """This process's share of the bytes that may still be allocated; the workers on this node share them equally.

    They are the least of the machine's available memory and of what the limits of the control groups and of Slurm
    leave.
    """
    return max(0, min(_meminfo(), *group_bytes(), *job_bytes(), 2**62)) // workers_on_node()


def workers_on_node(env: Mapping[str, str] = os.environ) -> int:
    """The number of workers that share this node's memory: from the local launcher, else Slurm's number of tasks."""
    for name in (WORKERS, "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE"):
        found = re.match(r"\d+", env.get(name, ""))  # of `4(x2),3` the first number: tasks of one node
        if found:
            return max(1, int(found[0]))
    return 1


def workers_on_gpu(env: Mapping[str, str] = os.environ) -> int:
    """The number of workers that share this worker's GPU, from their launcher."""
    return max(1, _number(env, WORKERS_ON_GPU))


def job_bytes(env: Mapping[str, str] = os.environ, status: Path = Path("/proc/self/status")) -> list[int]:
    """[bytes] that are left of the memory requested from Slurm; [] outside a job, or where none was requested.

    Not every site enforces the request by control groups. A job that uses more takes it from other jobs, or is killed.
    All workers of the job are assumed to use as much as this one.
    """
    node, cpu, cpus = (_number(env, f"SLURM_{n}") for n in ("MEM_PER_NODE", "MEM_PER_CPU", "CPUS_ON_NODE"))
    requested = node or cpu * cpus  # MiB
    if not requested:
        return []
    return [requested * 2**20 - workers_on_node(env) * _kilobytes(status, "VmRSS") * 1024]


def _number(env: Mapping[str, str], name: str) -> int:
    return int(env[name]) if env.get(name, "").isdigit() else 0


def group_bytes(listed: Path = Path("/proc/self/cgroup"), root: Path = GROUPS) -> list[int]:
    """The bytes that are left of the limit of each control group of this process that has a limit."""
    left = []
    for folder, (limit, current, cached) in _groups(listed, root):
        try:
            used = int((folder / current).read_text()) - _cached(folder / "memory.stat", cached)
            left.append(int((folder / limit).read_text()) - used)
        except (OSError, ValueError):
            continue  # no such file, or "max"
    return left


def _groups(listed: Path, root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The folders of the process's memory group and of all groups above it, with the names of their files."""
    try:
        lines = listed.read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") > 1):
        if controllers and "memory" not in controllers.split(","):
            continue
        top, files = (root / "memory", FILES["v1"]) if controllers else (root, FILES["v2"])
        parts = Path(path.lstrip("/")).parts
        for n in range(len(parts) + 1):
            yield top.joinpath(*parts[:n]), files


def _cached(path: Path, name: str) -> int:
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(name + " ")), 0)


def _meminfo() -> int:
    return _kilobytes(Path("/proc/meminfo"), "MemAvailable") * 1024 or 4 * 2**30  # not Linux: a cautious guess


def _kilobytes(path: Path, name: str) -> int:
    """The number in a line such as `Name:  123 kB`. 0 without file or line."""
    try:
        return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        return 0
