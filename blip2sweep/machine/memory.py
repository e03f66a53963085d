"""How much memory this process may take, and which errors say that memory ran out. No torch here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

WORKERS = "BLIP2SWEEP_WORKERS_ON_NODE"  # set for its workers by the local launcher
WORKERS_ON_GPU = "BLIP2SWEEP_WORKERS_ON_GPU"  # how many of a launcher's workers compute on the GPU of this one
GROUPS = Path("/sys/fs/cgroup")
# Limit, use, and the line of memory.stat that counts file pages the kernel gives back when asked, by cgroup version.
FILES = {
    "v2": ("memory.max", "memory.current", "inactive_file"),
    "v1": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
# In the text of a RuntimeError: of the CPU's allocator, of CUDA's runtime, of cuBLAS and cuDNN.
OUT_OF_MEMORY = (
    "DefaultCPUAllocator", "not enough memory", "can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """A MemoryError, torch's OutOfMemoryError, or a RuntimeError of a library below torch that means the same."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def free_host_bytes() -> int:
    """This process's part of what may still be allocated: of the machine's available memory, and of what every control
    group above it leaves of its limit; shared with the other workers on this node."""
    return max(0, min(_meminfo(), *group_bytes(), *job_bytes(), 2**62)) // workers_on_node()


def workers_on_node(env: Mapping[str, str] = os.environ) -> int:
    """How many workers share this node's memory: as the local launcher says, else Slurm of this job's tasks."""
    for name in (WORKERS, "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE"):
        found = re.match(r"\d+", env.get(name, ""))  # `4(x2),3`: tasks on the first nodes; a pack runs on one
        if found:
            return max(1, int(found[0]))
    return 1


def workers_on_gpu(env: Mapping[str, str] = os.environ) -> int:
    """How many workers share this one's GPU, as their launcher says."""
    return max(1, _number(env, WORKERS_ON_GPU))


def job_bytes(env: Mapping[str, str] = os.environ, status: Path = Path("/proc/self/status")) -> list[int]:
    """What is left of the memory that was asked of Slurm, which not every site holds a job to by control groups: more
    would be taken from the node's other jobs, or end this one. The job's workers are taken to be alike."""
    node, cpu, cpus = (_number(env, f"SLURM_{n}") for n in ("MEM_PER_NODE", "MEM_PER_CPU", "CPUS_ON_NODE"))
    asked = node or cpu * cpus
    return [asked * 2**20 - workers_on_node(env) * _kilobytes(status, "VmRSS") * 1024] if asked else []


def _number(env: Mapping[str, str], name: str) -> int:
    return int(env[name]) if env.get(name, "").isdigit() else 0


def group_bytes(listed: Path = Path("/proc/self/cgroup"), root: Path = GROUPS) -> list[int]:
    """What is left of the limit in each of this process's control groups that has one."""
    left = []
    for folder, (limit, current, cached) in _groups(listed, root):
        try:
            used = int((folder / current).read_text()) - _cached(folder / "memory.stat", cached)
            left.append(int((folder / limit).read_text()) - used)
        except (OSError, ValueError):
            continue  # not there, or "max"
    return left


def _groups(listed: Path, root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The folders of the process's own memory group and of all above it, with the names of their files."""
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
    """A number of a file of `Name:  123 kB`; 0 where there is none."""
    try:
        return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        return 0
