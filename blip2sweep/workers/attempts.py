"""What earlier attempts at a cell mean for a worker: whether one still runs, and whether to try again."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence

from blip2sweep.machine.processes import exists, lives
from blip2sweep.results.attempts import Attempts
from blip2sweep.wire.lines import StartLine, WorkerFailure
from blip2sweep.wire.pack import CellJob, Settings

ATTEMPTS_PER_CELL = 2
HALF_BATCH = 32  # the batch size after lack of memory, where it was automatic (64 on a CPU, 256 on a GPU)


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


def died_in(run: str, cells: Iterable[Attempts | None]) -> bool:
    """Whether a process ended with one of these cells in hand, in this launch. Not one whose whole job ended."""
    failures = (failure for attempts in cells if attempts for failure in attempts.failed_in([run]))
    return any(failure.get("fatal") and failure["kind"] != "lost" for failure in failures)


def half_batch(settings: Settings) -> int:
    """The batch size after lack of memory."""
    batch_size = settings.get("batch_size")
    return max(1, batch_size // 2) if batch_size else HALF_BATCH


def duration_group(job: CellJob) -> tuple[str, str]:
    """The model and task, and whether something is trained. Cells that share them take about the same time."""
    trained = " recover" if "recovery" in job else ""
    return job["columns"]["model"], job["columns"]["task"] + trained
