"""Which packs of a launch still have a process. Slurm is asked, and may not answer: the ledger is the truth."""

from __future__ import annotations

import socket
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from blip2sweep.processes import lives
from blip2sweep.sweep.sweeps import Submission, Sweep

SILENT_SECONDS = 3600.0  # a sweep of another host whose journals have not grown for so long is taken for dead
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")


@dataclass
class Live:
    """packs: {(run, index): `running` or `queued`}. known: False when Slurm, or another host, was not to be asked."""

    known: bool = True
    packs: dict[tuple[str, int], str] = field(default_factory=dict)
    jobs: set[str] = field(default_factory=set)  # Slurm's ids, `12_3`
    submitters: set[int] = field(default_factory=set)  # processes that have more to submit
    pending: Counter[str] = field(default_factory=Counter)  # Slurm's reasons why jobs wait

    def __bool__(self) -> bool:
        """Something may still be going on."""
        return bool(self.packs) or not self.known


def live(sweep: Sweep, output_dir: Path) -> Live:
    """All launches of a sweep together."""
    found, users = Live(), {s.user for s in sweep.submissions if s.kind == "slurm"}
    for submission in (s for s in sweep.submissions if s.kind == "local"):
        _add_local(found, submission, output_dir)
    for user in users:
        lines = squeue(user)
        found.known &= lines is not None
        for line in lines or ():
            _add_line(found, line, [s for s in sweep.submissions if s.kind == "slurm"])
    for submission in (s for s in sweep.submissions if s.kind == "slurm"):
        _add_unsubmitted(found, submission)
    return found


def _add_unsubmitted(found: Live, submission: Submission) -> None:
    """Packs that the submitter still waits to queue, because of a limit or between two arrays."""
    queued = sum(a["count"] for a in submission.arrays)
    here = submission.host == socket.gethostname()
    if queued < submission.packs and here and submitter_lives(submission):
        found.packs |= {(submission.run, i): "queued" for i in range(queued, submission.packs)}
        found.submitters.add(submission.pid)


def _add_local(found: Live, submission: Submission, output_dir: Path) -> None:
    if submission.host != socket.gethostname():
        found.known &= _silent(submission, output_dir)
    elif submitter_lives(submission):
        found.packs |= {(submission.run, i): "running" for i in range(submission.packs)}


def _silent(submission: Submission, output_dir: Path) -> bool:
    """Whether nothing has been heard of another host's launch for long."""
    grown = [p.stat().st_mtime for p in (output_dir / "journals").glob(f"{submission.host}-*.jsonl")]
    return time.time() - max([submission.created, *grown]) > SILENT_SECONDS


def submitter_lives(submission: Submission) -> bool:
    """Whether the process that launched it is still there. Launches of earlier versions say no more than when that was, by
    a clock that may have been set since."""
    if submission.process:
        return lives(submission.pid, submission.process)
    try:
        process = psutil.Process(submission.pid)
        return process.create_time() <= submission.created + 1 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError, OverflowError):
        return False


def squeue(user: str) -> list[list[str]] | None:
    """[[job id, array id, index in the array, state, reason, comment]] of a user's live jobs; None when Slurm does not
    answer."""
    command = ["squeue", "-h", "-r", "-u", user, "-o", "%A|%F|%K|%T|%r|%k"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode:
        return None
    return [line.split("|", 5) for line in done.stdout.splitlines() if line.count("|") >= 5]


def _add_line(found: Live, line: list[str], submissions: list[Submission]) -> None:
    _, array, index, state, reason, comment = line
    offset = int(index) if index.isdigit() else 0
    for submission in submissions:
        first = _first_pack(submission, array, comment)
        if first is not None:
            found.packs[submission.run, first + offset] = "running" if state in RUNNING else "queued"
            found.jobs.add(f"{array}_{index}" if index.isdigit() else array)
            found.pending.update([reason] if state == "PENDING" else [])


def _first_pack(submission: Submission, array: str, comment: str) -> int | None:
    """By job id, or by the mark in the comment where the submitter died before it could note the id."""
    for known in submission.arrays:
        if known["job"] == array:
            return int(known["first"])
    run, _, first = comment.removeprefix("blip2sweep ").partition(":")
    return int(first) if run == submission.run and first.isdigit() else None


def mark(run: str, first: int) -> str:
    """The comment of an array's jobs: which launch, and from which pack on."""
    return f"blip2sweep {run}:{first}"
