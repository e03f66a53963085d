"""What earlier attempts at a cell mean for a worker: whether one still runs, and whether to try again."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from blip2sweep.machine.processes import exists, lives
from blip2sweep.wire.lines import StartLine, WorkerFailure

ATTEMPTS_PER_CELL = 2


def may_live(start: StartLine) -> bool:
    """Whether the process that started an attempt may still run. Processes of other hosts always may."""
    if start["host"] != socket.gethostname():
        return True
    process = start.get("process")
    return lives(start["pid"], process) if process else exists(start["pid"])


def retry_mode(failures: Sequence[WorkerFailure]) -> str:
    """How to run a cell after its failures in this run: `run`, `half` (with half the batch size) or `skip`."""
    if not failures:
        return "run"
    last = failures[-1]
    if len(failures) >= ATTEMPTS_PER_CELL or not (last.get("fatal") or last["kind"] == "oom"):
        return "skip"
    return "half" if last["kind"] == "oom" or last.get("signal") == 9 else "run"
