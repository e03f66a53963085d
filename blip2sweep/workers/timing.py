"""Times the cells of a pack that are done (`analysis.latency`), when all are computed and scored: then the machine is as
quiet as it will be, and what goes wrong can cost no cell."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from typing import cast

from blip2sweep.backends.backend import Backend, Times
from blip2sweep.errors import UserError
from blip2sweep.results.attempts import Attempts
from blip2sweep.results.latency import LOST, PREEMPTED, is_timed, is_timed_in, next_generation, was_tried
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.wire.lines import Failure, Timed
from blip2sweep.wire.pack import CellJob, Pack
from blip2sweep.workers.run_cell import BROKEN_DEVICE, DeviceBroken, failure, say
from blip2sweep.workers.signals import Stop, Stopped, seconds_left

MARGIN = 1.2  # a cell may take this many times the longest one before it
DIED: Failure = {"kind": LOST, "error": "the process ended while it timed the cell", "traceback": ""}


class Timing:
    """Times cells one after the other. Each try is in the ledger before it begins, so no cell ends two processes.

    longest: seconds of the longest thing that this process did so far.
    """

    def __init__(self, pack: Pack, journal: Journal, ledger: Ledger, stop: Stop, longest: float = 0.0) -> None:
        self.pack, self.journal, self.ledger, self.stop = pack, journal, ledger, stop
        self.longest = longest

    def all(self, jobs: Iterable[CellJob], backend: Callable[[], Backend]) -> bool:
        """Time those of the cells that are done, and that this launch has neither timed nor tried to. False where too
        little wall time is left, or USR2 came. Raises as `__call__` does."""
        for job in jobs:
            if not self._wanted(job):
                continue
            if self.stop.reason or (self.longest and MARGIN * self.longest > seconds_left()):
                return False
            self(job, backend)
        return True

    def _wanted(self, job: CellJob) -> bool:
        attempts, rerun, run = self._attempts(job), self.pack["settings"].get("rerun", {}), self.pack["run"]
        done = self.ledger.done(job["key"], rerun.get(job["key"], ()))
        return done and not is_timed_in(attempts, run) and not was_tried(attempts, run)

    def __call__(self, job: CellJob, backend: Callable[[], Backend]) -> None:
        """Time one cell, unless another launch did so on this device and this one did not compute it.

        Raises Stopped when the worker was asked to stop, and DeviceBroken when the process has to end. All else that
        goes wrong is in the ledger, where the disk allows.
        """
        who: Timed = {"key": job["key"], "sweep": self.pack["sweep"], "run": self.pack["run"]}
        start = time.monotonic()
        try:
            self._measure(job, who, backend)
        except Stopped:
            self._give_up(who, {"kind": PREEMPTED, "error": "stopped", "traceback": ""})
            raise
        except Exception as error:  # the cell is done, whatever comes of its latency
            if self.stop.now:  # as an error that follows from a signal
                self._give_up(who, {"kind": PREEMPTED, "error": "stopped", "traceback": ""})
                raise Stopped from error
            self._fail(job, who, error)
        finally:
            self.longest = max(self.longest, time.monotonic() - start)

    def _measure(self, job: CellJob, who: Timed, backend: Callable[[], Backend]) -> None:
        self.journal.write("untimed", **who, **DIED)
        with self.stop.interruptible():
            made = cast("Times", backend())
            if self._is_known(job, made.device_name):
                return
            found = made.measure(job)
        generation = next_generation(self._attempts(job))
        self.journal.write_many("latency", [{**who, "generation": generation, **one} for one in found])
        say(job["key"], f"timed: {found[0]['ms_median']:.4g} ms an image")

    def _is_known(self, job: CellJob, device: str) -> bool:
        """Whether the cell has a latency of this device, and no newer result of this launch."""
        attempts = self._attempts(job)
        mine = attempts.result is not None and attempts.result.get("run") == self.pack["run"]
        return not mine and is_timed(attempts, {device})

    def _fail(self, job: CellJob, who: Timed, error: Exception) -> None:
        told = failure(error)
        say(job["key"], f"not timed\n{traceback.format_exc()}")
        self._give_up(who, {"kind": told["kind"], "error": told["error"], "traceback": told["traceback"]})
        if any(text in str(error) for text in BROKEN_DEVICE):
            raise DeviceBroken from error

    def _give_up(self, who: Timed, why: Failure) -> None:
        try:
            self.journal.write("untimed", **who, **why)
        except UserError as error:  # the disk; the cell was done before
            say(who["key"], f"not timed, and that is not in the ledger: {error}")

    def _attempts(self, job: CellJob) -> Attempts:
        return self.ledger.refresh().attempts.get(job["key"], Attempts())
