"""Which packs of a launch still have a process.

Slurm is asked and may not answer. Whether a cell is done is read from the ledger alone.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from blip2sweep.machine.processes import lives
from blip2sweep.results.sweeps import JobArray, Submission, Sweep
from blip2sweep.running.slurm_commands import clusters, other_cluster, query

SILENT_SECONDS = 3600.0  # a sweep of another host counts as dead when its journals have not grown for so long
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")

# (cluster, or None for the host's own; Slurm's id, such as `12_3`, which is unique on its cluster alone)
SlurmJob = tuple[str | None, str]


@dataclass
class QueueState:
    """The packs of a sweep that have a process. packs: {(run, index): `running` or `queued`}. known: False when Slurm
    or another host could not be asked."""

    known: bool = True
    packs: dict[tuple[str, int], str] = field(default_factory=dict)
    jobs: set[SlurmJob] = field(default_factory=set)
    submitters: set[int] = field(default_factory=set)  # processes that still have packs to submit
    pending: Counter[str] = field(default_factory=Counter)  # {Slurm's reason: jobs that wait for it}

    def __bool__(self) -> bool:
        """Whether something may still run."""
        return bool(self.packs) or not self.known


def queue_state(sweep: Sweep, output_dir: Path) -> QueueState:
    """The state of all launches of a sweep together. A cancelled launch has ended, also when Slurm cannot be asked."""
    queue, queued = QueueState(), [s for s in sweep.submissions if s.kind == "slurm"]
    for submission in (s for s in sweep.submissions if s.kind == "local"):
        _add_local(queue, submission, output_dir)
    for user, cluster in sorted({(s.user, c) for s in queued for c in clusters_of(s)}, key=str):
        lines, answered = squeue(user, cluster)
        launches = [s for s in queued if s.user == user and cluster in clusters_of(s)]
        queue.known &= answered or all(s.cancelled for s in launches)
        for line in lines:
            _add_line(queue, line, launches)
    for submission in queued:
        _add_unsubmitted(queue, submission)
    return queue


def clusters_of(submission: Submission) -> set[str | None]:
    """The clusters where a launch has jobs, and those where it may have jobs whose ids were never received."""
    noted = {_cluster(a, submission) for a in submission.arrays}
    if noted and sum(a["count"] for a in submission.arrays) >= submission.packs:
        return noted
    return noted.union(clusters(submission.launcher) or [other_cluster(submission.cluster)])


def queued_jobs(sweep: Sweep) -> set[SlurmJob]:
    """Every job of a sweep that was not cancelled, for when Slurm does not say which of them are alive."""
    return {(_cluster(a, s), a["job"]) for s in sweep.submissions if not s.cancelled for a in s.arrays}


def _cluster(array: JobArray, submission: Submission) -> str | None:
    return array.get("cluster") or ",".join(clusters(submission.launcher)) or other_cluster(submission.cluster)


def _add_unsubmitted(queue: QueueState, submission: Submission) -> None:
    """Add packs that the submitter has not submitted yet, because of a limit or between two arrays."""
    queued = sum(a["count"] for a in submission.arrays)
    here = submission.host == socket.gethostname()
    if queued < submission.packs and here and submitter_lives(submission):
        queue.packs |= {(submission.run, i): "queued" for i in range(queued, submission.packs)}
        queue.submitters.add(submission.pid)


def _add_local(queue: QueueState, submission: Submission, output_dir: Path) -> None:
    """Add the packs of a launch on one machine."""
    if submission.host != socket.gethostname():
        queue.known &= _silent(submission, output_dir)
    elif submitter_lives(submission):
        queue.packs |= {(submission.run, i): "running" for i in range(submission.packs)}


def _silent(submission: Submission, output_dir: Path) -> bool:
    """Whether the journals of another host's launch have not grown for SILENT_SECONDS."""
    grown = [p.stat().st_mtime for p in (output_dir / "journals").glob(f"{submission.host}-*.jsonl")]
    return time.time() - max([submission.created, *grown]) > SILENT_SECONDS


def submitter_lives(submission: Submission) -> bool:
    """Whether the process that launched it still runs. For a launch of an earlier version, which recorded only a pid
    and a time, this is a guess: the clock may have been set since."""
    if submission.process:
        return lives(submission.pid, submission.process)
    try:
        process = psutil.Process(submission.pid)
        return process.create_time() <= submission.created + 1 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError, OverflowError):
        return False


def squeue(user: str, cluster: str | None = None) -> tuple[list[list[str]], bool]:
    """([[cluster, job id, array id, index in the array, state, reason, comment]] of a user's live jobs; whether Slurm
    answered for all of them). cluster: None for the host's own; `all`, or several with commas, name the cluster in each
    line."""
    quiet = [] if cluster else ["-h"]  # with headers, the name of each cluster precedes its jobs
    reply = query("squeue", *quiet, "-r", "-u", user, "-o", "%A|%F|%K|%T|%r|%k", cluster=cluster)
    if reply is None:
        return [], False
    found, job_cluster = [], cluster or ""
    for line in reply.out.split("\n"):
        if line.startswith("CLUSTER: "):
            job_cluster = line.removeprefix("CLUSTER: ").strip()
        elif line.count("|") >= 5 and line[0].isdigit():
            found.append([job_cluster, *line.split("|", 5)])
    return found, reply.code == 0 and not (cluster and "error:" in reply.err)


def _add_line(queue: QueueState, line: list[str], submissions: list[Submission]) -> None:
    """Add a job of squeue's answer that belongs to one of these launches."""
    job_cluster, _, array, index, state, reason, comment = line
    cluster, offset = job_cluster or None, int(index) if index.isdigit() else 0
    for submission in submissions:
        first = _first_pack(submission, (cluster, array), comment)
        if first is not None:
            queue.packs[submission.run, first + offset] = "running" if state in RUNNING else "queued"
            queue.jobs.add((cluster, f"{array}_{index}" if index.isdigit() else array))
            queue.pending.update([reason] if state == "PENDING" else [])


def _first_pack(submission: Submission, array: SlurmJob, comment: str) -> int | None:
    """The first pack of the job's array, by job id, or by the comment when the submitter ended before it recorded the
    id. None: another sweep's."""
    for recorded in submission.arrays:
        if (_cluster(recorded, submission), recorded["job"]) == array:
            return int(recorded["first"])
    run, _, first = comment.removeprefix("blip2sweep ").partition(":")
    return int(first) if run == submission.run and first.isdigit() else None


def array_comment(run: str, first: int) -> str:
    """The comment of an array's jobs: its launch, and its first pack."""
    return f"blip2sweep {run}:{first}"
