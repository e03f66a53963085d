"""How a worker, or who launched it, is asked to end, and how much wall time its job has left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

# Set by the batch process: when the job's wall time is over, in this host's clock, and how long it was in all.
END, WALL = "BLIP2SWEEP_JOB_END", "BLIP2SWEEP_JOB_SECONDS"
WARNING = "BLIP2SWEEP_SIGNAL_DELAY"  # seconds before the end at which USR2 is due
COARSE = 120.0  # Slurm's clock for that signal may be a minute early
WHOLE = 0.8  # a cell that had this share of the wall time and did not finish will not finish in another turn either


class Stopped(BaseException):
    """The cell in hand is given up. No Exception, so that nothing which guards against a cell's errors swallows it."""


class Stop:
    """USR2: end after the cell in hand. TERM: end now. Nothing is cut while a result is being committed.

    reason: `timeout` where USR2 came near the end of wall time, `preempted` where it came early or TERM came, else None.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.whole_turn = False  # the cell in hand started with nearly all of the wall time before it
        self.now = False  # TERM has come
        self._interruptible = False

    def install(self) -> None:
        signal.signal(signal.SIGUSR2, self._on_usr2)
        signal.signal(signal.SIGTERM, self._on_term)

    def _on_usr2(self, *_: object) -> None:
        self.reason = self.reason or ("timeout" if ending() else "preempted")

    def _on_term(self, *_: object) -> None:
        self.reason = self.reason or "preempted"
        self.now = True
        if self._interruptible:
            self._interruptible = False  # Slurm signals every process, and the supervisor forwards: once is enough
            raise Stopped

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raises Stopped inside, when TERM comes or has come."""
        try:
            self._interruptible = True
            self.whole_turn = whole_turn(time.time())
            if self.now:
                raise Stopped
            yield
        finally:
            self._interruptible = False


def term_as_ctrl_c() -> None:
    """For who launches a sweep: TERM, as of `blip2sweep cancel`, ends it as Ctrl-C does. That alone would not do, for what
    a script starts in its background is told to ignore it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def end_with_parent() -> None:
    """Linux: TERM when the supervisor is gone, so that nothing goes on that nobody watches."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def whole_turn(start: float) -> bool:
    """Whether a cell that was begun at `start` had nearly all of the job's wall time before it."""
    end, wall = (float(os.environ.get(name, "inf")) for name in (END, WALL))
    return wall < float("inf") and end - start > WHOLE * wall


def seconds_left() -> float:
    """Until the job's wall time is over; infinite where there is no limit."""
    return float(os.environ.get(END, "inf")) - time.time()


def ending() -> bool:
    """Whether USR2 now means the end of wall time. Long before it, it is a notice of preemption."""
    return seconds_left() < float(os.environ.get(WARNING, COARSE)) + COARSE
