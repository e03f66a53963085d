"""Which packs of a launch still have a process. Slurm is asked, and may not answer: the ledger is the truth."""

from __future__ import annotations

import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from blip2sweep.machine.processes import lives
from blip2sweep.results.sweeps import JobArray, Submission, Sweep
from blip2sweep.running.slurm_commands import clusters, elsewhere, query

SILENT_SECONDS = 3600.0  # a sweep of another host whose journals have not grown for so long is taken for dead
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")

SlurmJob = tuple[str | None, str]  # its cluster, None for the one here, and Slurm's id, `12_3`: ids are a cluster's


@dataclass
class Live:
    """packs: {(run, index): `running` or `queued`}. known: False when Slurm, or another host, was not to be asked."""

    known: bool = True
    packs: dict[tuple[str, int], str] = field(default_factory=dict)
    jobs: set[SlurmJob] = field(default_factory=set)
    submitters: set[int] = field(default_factory=set)  # processes that have more to submit
    pending: Counter[str] = field(default_factory=Counter)  # Slurm's reasons why jobs wait

    def __bool__(self) -> bool:
        """Something may still be going on."""
        return bool(self.packs) or not self.known


def live(sweep: Sweep, output_dir: Path) -> Live:
    """All launches of a sweep together. What was cancelled is over, also where Slurm cannot be asked."""
    found, queued = Live(), [s for s in sweep.submissions if s.kind == "slurm"]
    for submission in (s for s in sweep.submissions if s.kind == "local"):
        _add_local(found, submission, output_dir)
    for user, cluster in sorted({(s.user, c) for s in queued for c in clusters_of(s)}, key=str):
        lines, answered = squeue(user, cluster)
        here = [s for s in queued if s.user == user and cluster in clusters_of(s)]
        found.known &= answered or all(s.cancelled for s in here)
        for line in lines:
            _add_line(found, line, here)
    for submission in queued:
        _add_unsubmitted(found, submission)
    return found


def clusters_of(submission: Submission) -> set[str | None]:
    """Where a launch has jobs, and where it may have some whose number we never heard."""
    told = {_cluster(a, submission) for a in submission.arrays}
    if told and sum(a["count"] for a in submission.arrays) >= submission.packs:
        return told
    return told.union(clusters(submission.launcher) or [elsewhere(submission.cluster)])


def queued_jobs(sweep: Sweep) -> set[SlurmJob]:
    """Every job that a sweep ever had and that was not cancelled, for when Slurm does not say which of them live."""
    return {(_cluster(a, s), a["job"]) for s in sweep.submissions if not s.cancelled for a in s.arrays}


def _cluster(array: JobArray, submission: Submission) -> str | None:
    return array.get("cluster") or ",".join(clusters(submission.launcher)) or elsewhere(submission.cluster)


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


def squeue(user: str, cluster: str | None = None) -> tuple[list[list[str]], bool]:
    """[[cluster, job id, array id, index in the array, state, reason, comment]] of a user's live jobs, and whether Slurm
    answered for all of them. cluster: None for the one here; `all`, or several with commas, are told apart in the lines."""
    quiet = [] if cluster else ["-h"]  # without it the names of clusters stand above their jobs
    said = query("squeue", *quiet, "-r", "-u", user, "-o", "%A|%F|%K|%T|%r|%k", cluster=cluster)
    if said is None:
        return [], False
    found, where = [], cluster or ""
    for line in said.out.split("\n"):
        if line.startswith("CLUSTER: "):
            where = line.removeprefix("CLUSTER: ").strip()
        elif line.count("|") >= 5 and line[0].isdigit():
            found.append([where, *line.split("|", 5)])
    return found, said.code == 0 and not (cluster and "error:" in said.err)


def _add_line(found: Live, line: list[str], submissions: list[Submission]) -> None:
    where, _, array, index, state, reason, comment = line
    cluster, offset = where or None, int(index) if index.isdigit() else 0
    for submission in submissions:
        first = _first_pack(submission, (cluster, array), comment)
        if first is not None:
            found.packs[submission.run, first + offset] = "running" if state in RUNNING else "queued"
            found.jobs.add((cluster, f"{array}_{index}" if index.isdigit() else array))
            found.pending.update([reason] if state == "PENDING" else [])


def _first_pack(submission: Submission, array: SlurmJob, comment: str) -> int | None:
    """By job id, or by the mark in the comment where the submitter died before it could note the id."""
    for known in submission.arrays:
        if (_cluster(known, submission), known["job"]) == array:
            return int(known["first"])
    run, _, first = comment.removeprefix("blip2sweep ").partition(":")
    return int(first) if run == submission.run and first.isdigit() else None


def mark(run: str, first: int) -> str:
    """The comment of an array's jobs: which launch, and from which pack on."""
    return f"blip2sweep {run}:{first}"
