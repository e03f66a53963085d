"""Runs the cells of a pack: `python -m blip2sweep.workers.worker PACK [RANK/TASKS]`; with RANK/TASKS only its share of
them.

Before each cell the worker reads the ledger. A cell that another sweep has done meanwhile is skipped. A cell that
another worker is computing is left for the end, and so is one that may stop while its baseline is on its way. A cell
that failed in this run is not tried again, except once after a crash or lack of memory.

The exit code is 0; 3 when a cell failed; 4 when the worker was asked to stop before the end; 5 when the device needs a
new process; 2 for bad input.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from blip2sweep.backends.backend import Answered, Backend, load_backend
from blip2sweep.console import work_log
from blip2sweep.console.printing import say as printed
from blip2sweep.errors import UserError
from blip2sweep.machine.garbage import as_usual, seldom
from blip2sweep.machine.processes import settle_user
from blip2sweep.planning.packs import read_pack, share
from blip2sweep.results.ledger import Attempts, Journal, Ledger
from blip2sweep.results.predictions import stem
from blip2sweep.results.stopped import asked
from blip2sweep.results.unscored import is_scored
from blip2sweep.wire.pack import CellJob, Pack, Settings
from blip2sweep.workers.attempts import died_in, duration_group, half_batch, may_live, retry_mode
from blip2sweep.workers.baselines import Baselines
from blip2sweep.workers.by_rounds import ByRounds
from blip2sweep.workers.in_context import run_in_context
from blip2sweep.workers.processes import Processes
from blip2sweep.workers.run_cell import DeviceBroken, Run, Scoring, refuse, run_cell, say, unusable
from blip2sweep.workers.side_by_side import Later
from blip2sweep.workers.signals import Stop, Stopped, end_with_parent, seconds_left
from blip2sweep.workers.telling import Warnings
from blip2sweep.workers.timing import MARGIN, Timing

CELL_FAILED, STOPPED, BROKEN = 3, 4, 5
# Seconds to wait at the end for a cell that another worker is computing; longer where cells take longer.
PATIENCE = 60.0


def run_pack(pack: Pack, journal: Journal, stop: Stop | None = None) -> int:
    """Run the cells that the ledger does not have yet. Returns the exit code."""
    return Worker(pack, journal, stop or Stop()).run()


class Worker:
    """One process that runs a pack."""

    def __init__(self, pack: Pack, journal: Journal, stop: Stop) -> None:
        self.pack, self.journal, self.stop = pack, journal, stop
        self.output_dir = Path(pack["output_dir"])
        compared = {j["baseline"] for j in pack["cells"] if "stop" in pack["settings"]}
        self.ledger = Ledger(self.output_dir, only=compared | {j["key"] for j in pack["cells"]})
        self.backend: Backend | None = None
        self.failed = False
        self._unusable = {j["key"]: why for j in pack["cells"] if (why := unusable(j))}
        self._warnings = Warnings(pack, journal)
        self._scoring = Scoring(journal, self.output_dir, pack["settings"].get("scoring_minutes"), self._warnings)
        self._rounds = ByRounds(self.output_dir, pack["settings"], self.ledger, self._warnings.once, say)
        self._baselines = Baselines(pack, self.ledger)
        self._todo: deque[CellJob] = deque(pack["cells"])
        self._deferred: dict[str, float] = {}  # {key: when the cell was first left to another worker}
        self._longest: dict[tuple[str, str], float] = {}  # {duration group: seconds}

    def run(self) -> int:
        """The exit code, when everything is scored. A worker that is asked to stop does not wait for scores."""
        code = STOPPED
        try:
            code = _guarded(self._cells)
        finally:
            if isinstance(self.backend, Processes):
                self.backend.close()
            self._rounds.close()
            scored = self._scoring.close(wait=code not in (STOPPED, BROKEN))
        if code in (STOPPED, BROKEN):
            return code
        return _guarded(self._time) or (code if scored else CELL_FAILED)

    def _cells(self) -> int:
        """Run all cells. Returns the exit code without regard to scores."""
        todo = self._todo
        while todo and not self.stop.reason:
            if not self._step(todo.popleft(), todo):
                return STOPPED
        return STOPPED if todo else CELL_FAILED if self.failed else 0

    def _time(self) -> int:
        """Time the cells of which latency is asked. Returns 0, or STOPPED where some are left for the next turn."""
        asked = set(self.pack["settings"].get("latency", ()))
        jobs = [j for j in self.pack["cells"] if j["key"] in asked and j["key"] not in self._unusable]
        timing = Timing(self.pack, self.journal, self.ledger, self.stop, max(self._longest.values(), default=0.0))
        try:
            return 0 if timing.all(jobs, self._for_timing) else STOPPED
        finally:
            if isinstance(self.backend, Processes):
                self.backend.close()

    def _for_timing(self) -> Backend:
        self.backend = self.backend or self._load_backend()
        return self.backend.own if isinstance(self.backend, Processes) else self.backend

    def _step(self, job: CellJob, todo: deque[CellJob]) -> bool:
        """Run, skip or postpone one cell. False when it would not finish in the wall time that is left."""
        attempts = self.ledger.refresh().attempts.get(job["key"], Attempts())
        verdict = retry_mode(attempts.failed_in([self.pack["run"]]))
        if self._done(job):
            self._rounds.done_elsewhere(job)
            self._score_if_missing(job, attempts)
        elif verdict == "skip":
            self.failed = True
        elif self._waits(job, attempts, alone=not todo) or self._baselines.awaited(job, todo, self._patience(job)):
            todo.append(job)
        elif not self._fits(job):
            say(job["key"], f"not started: {seconds_left():.0f} s of wall time left")
            return False
        else:
            self._run(job, half=verdict == "half")
            self._postpone_retry(job, todo)
        return True

    def _run(self, job: CellJob, half: bool) -> None:
        start, self._rounds.companions.lent = time.monotonic(), 0.0
        if (why := self._unusable.get(job["key"])) is not None:
            run_cell(job, partial(refuse, why), self.journal, self.pack, self.stop, self.ledger)
            return
        name = run_cell(job, self._runner(job, half), self.journal, self.pack, self.stop, self.ledger)
        if name is not None:
            self._rounds.committed(job)
            self._scoring(name, job)
        self._warnings.first_of_backend(getattr(self.backend, "warning", None))  # which one from outside may lack
        own = time.monotonic() - start - self._rounds.companions.lent
        self._longest[duration_group(job)] = max(self._longest.get(duration_group(job), 0.0), own)

    def _runner(self, job: CellJob, half: bool) -> Run:
        """What runs a cell. One that asks a chat model may need no back end, where all rounds are known."""
        size = half_batch(self.pack["settings"]) if half else None
        ask = partial(self._round, batch_size=size)
        if self._rounds.applies(job):
            return partial(self._rounds, ask=ask, backend=self._ready(job), later=Later(self._todo, self._may_begin))
        if "chat" not in job:
            return partial(self._ready(job), batch_size=size)
        return partial(run_in_context, ask=ask, output_dir=self.output_dir, settings=self.pack["settings"])

    def _round(self, job: CellJob, batch_size: int | None) -> Answered:
        """What the back end says for a cell or a round of it. It is loaded when the first one is asked for."""
        return self._ready(job)(job, batch_size=batch_size)

    def _ready(self, job: CellJob) -> Backend:
        if self.backend is None:
            self._scoring.expect(job)
            self._rounds.expect(self.pack["cells"])
            self.backend = self._load_backend()
        return self.backend

    def _postpone_retry(self, job: CellJob, todo: deque[CellJob]) -> None:
        """Move a cell that just failed to the end, where it is tried again or counted as failed."""
        failures = self.ledger.refresh().attempts[job["key"]].failed_in([self.pack["run"]])
        if failures and not self._done(job):
            todo.append(job)

    def _done(self, job: CellJob) -> bool:
        """Whether the ledger has a result that counts for this sweep."""
        key, settings = job["key"], self.pack["settings"]
        return self.ledger.done(key, settings.get("rerun", {}).get(key, ()), asked(settings, key))

    def _may_begin(self, job: CellJob) -> bool:
        """Whether a cell may go in the turn of another: it has no result, nobody has it, and it waits for nothing."""
        attempts = self.ledger.attempts.get(job["key"], Attempts())
        busy = attempts.failed_in([self.pack["run"]]) or any(may_live(start) for start in attempts.open)
        free = job["key"] not in self._unusable and not busy and not self._done(job)
        return free and self._rounds.applies(job) and not self._baselines.comes(job, self._todo)

    def _waits(self, job: CellJob, attempts: Attempts, alone: bool) -> bool:
        """Whether to come back to the cell because another worker is computing it. Worth it once, or for some time when
        no other cell is left to run: the other worker may be dead."""
        if not any(s.get("run") != self.pack["run"] and may_live(s) for s in attempts.open):
            return False
        since = self._deferred.setdefault(job["key"], time.monotonic())
        if alone and time.monotonic() - since < self._patience(job):
            time.sleep(0.2)
            return True
        return time.monotonic() - since < 0.2

    def _patience(self, job: CellJob) -> float:
        return max(PATIENCE, MARGIN * self._longest.get(duration_group(job), 0.0))

    def _fits(self, job: CellJob) -> bool:
        """Whether the wall time that is left is enough. The first cell of a process always starts."""
        return not self._longest or self._longest.get(duration_group(job), 0.0) * MARGIN < seconds_left()

    def _load_backend(self) -> Backend:
        """The back end. It gets the list of the coming cells, so that it keeps what later cells share. Where a cell ended the
        process before this one each is alone from then on, because it may not have been the cell whose turn it was."""
        own = (self.ledger.attempts.get(job["key"]) for job in self.pack["cells"])
        settings: Settings = {**self.pack["settings"], "alone": died_in(self.pack["run"], own)}
        backend = Processes(settings) if settings.get("processes", 1) > 1 else load_backend(settings)
        as_usual()
        todo = (j for j in self.pack["cells"] if j["key"] not in self._unusable)
        backend.expect([one for j in todo if not self._done(j) for one in self._rounds.jobs_of(j)])
        return backend

    def _score_if_missing(self, job: CellJob, attempts: Attempts) -> None:
        """Submit a result without statistics, which a worker leaves that is killed between commit and score."""
        result = attempts.result
        assert result is not None
        assert result["predictions"] is not None
        name = stem(job["key"], result["predictions"])
        if not attempts.open and not is_scored(self.output_dir, name, job["task"]):
            self._scoring(name, job)


def _guarded(work: Callable[[], int]) -> int:
    """The exit code of a piece of work, also where it is given up."""
    try:
        return work()
    except Stopped:
        return STOPPED
    except DeviceBroken:
        return BROKEN


def main(argv: list[str]) -> int:
    """Run a pack from the command line. Returns the exit code."""
    # Has to be set before torch is loaded. Threads that spin while they wait are 10 times slower when another process
    # is busy, as the scoring process is.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    settle_user()
    stop = Stop()
    stop.install()
    end_with_parent()
    work_log.to_stderr()
    try:
        pack = share(read_pack(Path(argv[0])), *argv[1:2])
        with closing(Journal(Path(pack["output_dir"]))) as journal:
            return run_pack(pack, journal, stop)
    except UserError as error:
        printed(f"error: {error}", err=True)
        return 2


if __name__ == "__main__":
    seldom()
    sys.exit(main(sys.argv[1:]))
