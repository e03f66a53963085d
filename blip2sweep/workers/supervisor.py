"""Keeps a pack going when a cell takes its worker process down: one cell is lost, not the pack."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from blip2sweep.planning.packs import read_pack, share
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.wire.lines import AttemptId, Failure, StartLine, WorkerFailure
from blip2sweep.wire.pack import CellJob
from blip2sweep.workers.requeue import out_of_time, this_turn
from blip2sweep.workers.run_cell import OUT_OF_TIME, columns
from blip2sweep.workers.signals import whole_turn
from blip2sweep.workers.worker import BROKEN, CELL_FAILED, STOPPED, names

STUCK_SECONDS = 10.0  # after TERM: code that does not return to Python hears no signal
LOST: WorkerFailure = {
    "kind": "lost",
    "error": "the job ended with this cell in hand (node failure, or killed)",
    "traceback": "",
    "fatal": True,
}
IDLE_CRASHES = 2  # deaths with no cell in hand: a broken environment, which starting again does not mend


class Supervisor:
    """Runs one pack in a child process, again after a crash. `stop()` may be called from a signal handler or a thread."""

    def __init__(self, pack: Path, env: dict[str, str], log: IO[bytes] | None = None, part: str = "0/1") -> None:
        self.path, self.part, self.env, self.log = pack, part, env, log
        self.pack = share(read_pack(pack), part)
        self.output_dir = Path(self.pack["output_dir"])
        self.journal = Journal(self.output_dir)
        self.child: subprocess.Popen[bytes] | None = None
        self.reason: str | None = None  # why it was told to stop
        self.timeouts = 0  # turns of this pack that ran out of wall time before this one

    def run(self) -> int:
        """The worker's exit code in the end: 0, 3 when a cell failed, 4 when stopped before the end, 2 for bad input."""
        self._announce()
        self._close_lost()
        idle, code = 0, STOPPED
        try:
            while idle < IDLE_CRASHES and not self.reason:
                code = self._run_child()
                if code in (0, 2, CELL_FAILED, STOPPED) or self.reason:
                    break
                if code != BROKEN:
                    idle = 0 if self._close(self._in_hand(), crash(code)) else idle + 1
            return self._ended(code if idle < IDLE_CRASHES else CELL_FAILED)
        finally:
            self.journal.close()

    def stop(self, signum: int = signal.SIGTERM, reason: str = "preempted") -> None:
        """TERM ends the child at once, USR2 after its cell; what it finished is in the ledger."""
        self.reason = self.reason or reason
        if self.child and self.child.poll() is None:
            if reason == "timeout":  # so that the worker knows why TERM comes
                self.child.send_signal(signal.SIGUSR2)
            self.child.send_signal(signum)
            if signum == signal.SIGTERM:
                kill = threading.Timer(STUCK_SECONDS, self.child.kill)
                kill.daemon = True
                kill.start()

    def _run_child(self) -> int:
        command = [sys.executable, "-m", "blip2sweep.workers.worker", str(self.path), self.part]
        self.child = subprocess.Popen(command, env=self.env, stdout=self.log, stderr=self.log)
        if self.reason:  # told between two children
            self.child.terminate()
        return self.child.wait()

    def _ended(self, code: int) -> int:
        if self.reason and code not in (0, CELL_FAILED):
            self._requeue(self._in_hand())
            code = STOPPED
        if code == STOPPED:
            self.reason = self.reason or "timeout"  # the worker found too little time left to begin another cell
            self.journal.write("worker", **names(self.pack), turn=this_turn(), ended=self.reason)
        return code

    def _announce(self) -> None:
        """The first line of every worker: the ledger is found to be writable before anything is computed."""
        gpus = self.env.get("CUDA_VISIBLE_DEVICES")
        self.journal.write("worker", **names(self.pack), turn=this_turn(), gpus=gpus)

    def _close_lost(self) -> None:
        """Cells that an earlier job of this pack had in hand when it died without a word."""
        self._close([(j, s) for j in self._attempts() for s in self._open(j)], LOST)
        self.timeouts = out_of_time(self.ledger.workers, self.pack["run"], self.pack["index"])

    def _in_hand(self) -> list[tuple[CellJob, StartLine]]:
        """[(cell, its start)] that the dead child left open."""
        own = (socket.gethostname(), self.child.pid if self.child else 0)
        return [(j, s) for j in self._attempts() for s in self._open(j) if (s["host"], s["pid"]) == own]

    def _attempts(self) -> list[CellJob]:
        self.ledger = Ledger(self.output_dir, only={j["key"] for j in self.pack["cells"]}).refresh()
        return [j for j in self.pack["cells"] if j["key"] in self.ledger.attempts]

    def _open(self, job: CellJob) -> list[StartLine]:
        return [s for s in self.ledger.attempts[job["key"]].open if s.get("run") == self.pack["run"]]

    def _close(self, in_hand: list[tuple[CellJob, StartLine]], failure: Failure | WorkerFailure) -> bool:
        """Write what the dead could not. False when there was nothing to write."""
        for job, start in in_hand:
            self.journal.write("failed", **_names(start), columns=columns(job), **failure)
            self._remove_torn(start)
        return bool(in_hand)

    def _requeue(self, in_hand: list[tuple[CellJob, StartLine]]) -> None:
        """What a worker would have written that had to be killed."""
        for job, start in in_hand:
            if self.reason == "timeout" and whole_turn(start["time"]):
                self._close([(job, start)], OUT_OF_TIME)
                continue
            self.journal.write("requeued", **_names(start), reason=self.reason)
            self._remove_torn(start)

    def _remove_torn(self, start: StartLine) -> None:
        """Temporary files of the cell that died between writing and renaming."""
        for path in self.output_dir.glob(f"*/.{start['key']}-*.{start['host']}-{start['pid']}-*.tmp"):
            path.unlink(missing_ok=True)


def _names(start: StartLine) -> AttemptId:
    sweep, run, attempt = start.get("sweep"), start.get("run"), start.get("attempt")
    return {"key": start["key"], "sweep": sweep, "run": run, "attempt": attempt, "job": start.get("job")}


def crash(code: int) -> WorkerFailure:
    """How the ledger tells the death of a worker from its exit code (negative: a signal, as in subprocess)."""
    what = f"killed by signal {-code}" if code < 0 else f"exited with code {code}"
    killed_for_memory = code == -signal.SIGKILL and oom_kills() > 0
    hint = " (out of host memory)" if killed_for_memory else " (out of host memory?)" if code == -signal.SIGKILL else ""
    kind, signum = "oom" if killed_for_memory else "crash", -code if code < 0 else None
    return {
        "kind": kind,
        "error": f"the worker process was {what}{hint}",
        "traceback": "",
        "fatal": True,
        "signal": signum,
    }


def oom_kills() -> int:
    """How often the kernel killed for memory in this job's cgroup; 0 where that cannot be known."""
    try:
        group = next(x for x in Path("/proc/self/cgroup").read_text().splitlines() if x.startswith("0::"))[4:]
        events = Path(f"/sys/fs/cgroup/{group}/memory.events").read_text().split()
        return int(events[events.index("oom_kill") + 1]) if group and "SLURM_JOB_ID" in os.environ else 0
    except (OSError, StopIteration, ValueError):
        return 0
