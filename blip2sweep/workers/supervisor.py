"""Keeps a pack running when a cell ends its worker process: one cell is lost, not the pack."""

from __future__ import annotations

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
from blip2sweep.workers.death import crash, remove_temporary
from blip2sweep.workers.requeue import count_timeouts, requeue_count
from blip2sweep.workers.run_cell import OUT_OF_TIME, columns
from blip2sweep.workers.signals import had_whole_wall_time
from blip2sweep.workers.telling import worker_name
from blip2sweep.workers.worker import BROKEN, CELL_FAILED, STOPPED

STUCK_SECONDS = 10.0  # after TERM; native code that does not return to Python handles no signal
LOST: WorkerFailure = {
    "kind": "lost",
    "error": "the job ended with this cell in hand (node failure, or killed)",
    "traceback": "",
    "fatal": True,
}
IDLE_CRASHES = 2  # crashes without a running cell: the environment is broken, and another start would not help


class Supervisor:
    """Runs one pack in a child process, and starts another child after a crash. `stop` may be called from a signal
    handler or a thread."""

    def __init__(self, pack: Path, env: dict[str, str], log: IO[bytes] | None = None, part: str = "0/1") -> None:
        self.path, self.part, self.env, self.log = pack, part, env, log
        self.pack = share(read_pack(pack), part)
        self.output_dir = Path(self.pack["output_dir"])
        self.journal = Journal(self.output_dir)
        self.child: subprocess.Popen[bytes] | None = None
        self.reason: str | None = None  # why it was asked to stop
        self.timeouts = 0  # runs of this pack that ran out of wall time before this one

    def run(self) -> int:
        """The last exit code of the worker: 0, 3 when a cell failed, 4 when it was stopped before the end, 2 for bad
        input."""
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
        """End the child: at once for TERM, after its cell for USR2. Finished cells are in the ledger."""
        self.reason = self.reason or reason
        if self.child and self.child.poll() is None:
            if reason == "timeout":  # tells the worker why TERM follows
                self.child.send_signal(signal.SIGUSR2)
            self.child.send_signal(signum)
            if signum == signal.SIGTERM:
                kill = threading.Timer(STUCK_SECONDS, self.child.kill)
                kill.daemon = True
                kill.start()

    def _run_child(self) -> int:
        command = [sys.executable, "-m", "blip2sweep.workers.worker", str(self.path), self.part]
        self.child = subprocess.Popen(command, env=self.env, stdout=self.log, stderr=self.log)
        if self.reason:  # `stop` was called between two children
            self.child.terminate()
        try:
            return self.child.wait()
        finally:
            remove_temporary(self.child.pid)

    def _ended(self, code: int) -> int:
        """Requeue the cells that a killed child left, and record why the pack stopped. Returns the exit code."""
        if self.reason and code not in (0, CELL_FAILED):
            self._requeue(self._in_hand())
            code = STOPPED
        if code == STOPPED:
            self.reason = self.reason or "timeout"  # too little time was left for another cell
            self.journal.write("worker", **worker_name(self.pack), turn=requeue_count(), ended=self.reason)
        return code

    def _announce(self) -> None:
        """Write this worker's first line. It shows that the ledger can be written before anything is computed."""
        gpus = self.env.get("CUDA_VISIBLE_DEVICES")
        self.journal.write("worker", **worker_name(self.pack), turn=requeue_count(), gpus=gpus)

    def _close_lost(self) -> None:
        """Mark the cells as failed that an earlier job of this pack left open when it died."""
        self._close([(j, s) for j in self._attempted() for s in self._open_starts(j)], LOST)
        self.timeouts = count_timeouts(self.ledger.workers, self.pack["run"], self.pack["index"])

    def _in_hand(self) -> list[tuple[CellJob, StartLine]]:
        """[(job, start line)] of cells that the dead child left open."""
        own = (socket.gethostname(), self.child.pid if self.child else 0)
        return [(j, s) for j in self._attempted() for s in self._open_starts(j) if (s["host"], s["pid"]) == own]

    def _attempted(self) -> list[CellJob]:
        """The jobs of this pack that any process has started, by the ledger as it is now."""
        self.ledger = Ledger(self.output_dir, only={j["key"] for j in self.pack["cells"]}).refresh()
        return [j for j in self.pack["cells"] if j["key"] in self.ledger.attempts]

    def _open_starts(self, job: CellJob) -> list[StartLine]:
        """The job's starts in this launch that nothing has ended."""
        return [s for s in self.ledger.attempts[job["key"]].open if s.get("run") == self.pack["run"]]

    def _close(self, in_hand: list[tuple[CellJob, StartLine]], failure: Failure | WorkerFailure) -> bool:
        """Write the `failed` lines that a dead child could not write. False when there were none to write."""
        for job, start in in_hand:
            self.journal.write("failed", **_attempt_of(start), columns=columns(job), **failure)
            self._remove_torn(start)
        return bool(in_hand)

    def _requeue(self, in_hand: list[tuple[CellJob, StartLine]]) -> None:
        """Write the lines that a killed child would have written."""
        for job, start in in_hand:
            if self.reason == "timeout" and had_whole_wall_time(start["time"]):
                self._close([(job, start)], OUT_OF_TIME)
                continue
            self.journal.write("requeued", **_attempt_of(start), reason=self.reason)
            self._remove_torn(start)

    def _remove_torn(self, start: StartLine) -> None:
        """Remove temporary files that the dead process did not rename."""
        for path in self.output_dir.glob(f"*/.{start['key']}-*.{start['host']}-{start['pid']}-*.tmp"):
            path.unlink(missing_ok=True)


def _attempt_of(start: StartLine) -> AttemptId:
    """The fields by which the lines of an attempt name it."""
    sweep, run, attempt = start.get("sweep"), start.get("run"), start.get("attempt")
    return {"key": start["key"], "sweep": sweep, "run": run, "attempt": attempt, "job": start.get("job")}
