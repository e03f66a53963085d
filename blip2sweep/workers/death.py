"""How a process that died is recorded, and what it left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path

from blip2sweep.wire.lines import WorkerFailure


class ProcessFailed(Exception):
    """A process that shares a cell with this one failed or died. failure: what the ledger says of it."""

    def __init__(self, failure: WorkerFailure) -> None:
        super().__init__(failure["error"])
        self.failure = failure


def crash(code: int, who: str = "the worker process") -> WorkerFailure:
    """The fields of a `failed` line for a process that died, from its exit code (negative: a signal, as in
    subprocess)."""
    what = f"killed by signal {-code}" if code < 0 else f"exited with code {code}"
    killed_for_memory = code == -signal.SIGKILL and oom_kills() > 0
    hint = " (out of host memory)" if killed_for_memory else " (out of host memory?)" if code == -signal.SIGKILL else ""
    kind, signum = "oom" if killed_for_memory else "crash", -code if code < 0 else None
    return {
        "kind": kind,
        "error": f"{who} was {what}{hint}",
        "traceback": "",
        "fatal": True,
        "signal": signum,
    }


def oom_kills() -> int:
    """How many processes of this job's cgroup the kernel killed for memory; 0 when that is unknown."""
    try:
        group = next(x for x in Path("/proc/self/cgroup").read_text().splitlines() if x.startswith("0::"))[4:]
        events = Path(f"/sys/fs/cgroup/{group}/memory.events").read_text().split()
        return int(events[events.index("oom_kill") + 1]) if group and "SLURM_JOB_ID" in os.environ else 0
    except (OSError, StopIteration, ValueError):
        return 0


def temporary_prefix(pid: int) -> str:
    """How the names of a worker's folders in the folder for temporary files begin."""
    return f"blip2sweep-{socket.gethostname()}-{pid}-"


def remove_temporary(pid: int) -> None:
    """Remove the folders that a dead worker could not remove."""
    for path in Path(tempfile.gettempdir()).glob(f"{temporary_prefix(pid)}*"):
        shutil.rmtree(path, ignore_errors=True)
