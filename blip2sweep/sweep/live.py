"""Which packs of a launch still have a process. Slurm is asked, and may not answer: the ledger is the truth."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import dataclass, field

import psutil

from blip2sweep.sweep.sweeps import Submission, Sweep

RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")


@dataclass
class Live:
    """packs: {(run, index): `running` or `queued`}. known: False when Slurm, or another host, was not to be asked."""

    known: bool = True
    packs: dict[tuple[str, int], str] = field(default_factory=dict)
    jobs: set[str] = field(default_factory=set)  # Slurm's ids, `12_3`

    def __bool__(self) -> bool:
        """Something may still be going on."""
        return bool(self.packs) or not self.known


def live(sweep: Sweep) -> Live:
    """All launches of a sweep together."""
    found, users = Live(), {s.user for s in sweep.submissions if s.kind == "slurm"}
    for submission in (s for s in sweep.submissions if s.kind == "local"):
        _add_local(found, submission)
    for user in users:
        lines = squeue(user)
        found.known &= lines is not None
        for line in lines or ():
            _add_line(found, line, [s for s in sweep.submissions if s.kind == "slurm"])
    return found


def _add_local(found: Live, submission: Submission) -> None:
    if submission.host != socket.gethostname():
        found.known = False
    elif process_lives(submission.pid, submission.created):
        found.packs |= {(submission.run, i): "running" for i in range(submission.packs)}


def process_lives(pid: int, since: float) -> bool:
    """Whether the process that had this id at `since` is still there."""
    try:
        process = psutil.Process(pid)
        return process.create_time() <= since + 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def squeue(user: str) -> list[list[str]] | None:
    """[[job id, array id, index in the array, state, comment]] of a user's live jobs; None when Slurm does not answer."""
    command = ["squeue", "-h", "-r", "-u", user, "-o", "%A|%F|%K|%T|%k"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return [line.split("|") for line in done.stdout.splitlines()] if done.returncode == 0 else None


def _add_line(found: Live, line: list[str], submissions: list[Submission]) -> None:
    _, array, index, state, comment = line
    offset = int(index) if index.isdigit() else 0
    for submission in submissions:
        first = _first_pack(submission, array, comment)
        if first is not None:
            found.packs[submission.run, first + offset] = "running" if state in RUNNING else "queued"
            found.jobs.add(f"{array}_{index}" if index.isdigit() else array)


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
