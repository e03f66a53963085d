"""The signals that ask a worker, or a launching process, to end, and the wall time that is left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

from blip2sweep.machine import stopping
from blip2sweep.machine.stopping import Stopped

# Variables that the batch process sets: when the job's wall time ends (time.time() of this host), and its length in
# seconds.
END, WALL = "BLIP2SWEEP_JOB_END", "BLIP2SWEEP_JOB_SECONDS"
WARNING = "BLIP2SWEEP_SIGNAL_DELAY"  # variable: how many seconds before the end Slurm sends USR2
COARSE = 120.0  # seconds; Slurm may send the signal a minute early
WHOLE = 0.8  # a cell that had this share of the wall time and did not finish will not finish after a requeue either


class Stop:
    """Whether the worker is asked to end: by USR2 after the current cell, by TERM at once. A commit is never
    interrupted.

    reason: `timeout` when USR2 came near the end of the wall time, `preempted` when it came earlier or TERM came, else
    None.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.had_whole_wall_time = False  # the current cell started with nearly all of the wall time left
        self.now = False  # TERM was received
        self._interruptible = False

    def install(self) -> None:
        """Handle both signals in this process."""
        signal.signal(signal.SIGUSR2, self._on_usr2)
        signal.signal(signal.SIGTERM, self._on_term)

    def _on_usr2(self, *_: object) -> None:
        self.reason = self.reason or ("timeout" if ending() else "preempted")

    def _on_term(self, *_: object) -> None:
        self.reason = self.reason or "preempted"
        self.now = True
        if self._interruptible:
            self._interruptible = False  # TERM comes twice, from Slurm and from the supervisor
            raise Stopped

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raise Stopped inside when TERM comes, and at the start when it has come. Work that can go on later is told of
        USR2 too, when it asks."""
        try:
            self._interruptible = True
            self.had_whole_wall_time = had_whole_wall_time(time.time())
            if self.now:
                raise Stopped
            with stopping.told_by(lambda: self.reason is not None):
                yield
        finally:
            self._interruptible = False


@contextlib.contextmanager
def term_as_ctrl_c() -> Iterator[None]:
    """Make TERM, which `blip2sweep cancel` sends, raise KeyboardInterrupt inside. The handler of before comes back after.

    `cancel` cannot send the signal of Ctrl-C, because processes in the background of a script ignore it. A thread other
    than the main one may not change handlers, and changes none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        # None is a handler that C code installed. Python cannot install it again.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def end_with_parent(signum: int = signal.SIGTERM) -> None:
    """On Linux: have the kernel send a signal when the parent ends, so that no worker runs without its supervisor."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signum)  # PR_SET_PDEATHSIG


def had_whole_wall_time(start: float) -> bool:
    """Whether a cell that started at `start` (time.time()) had nearly all of the job's wall time left."""
    end, wall = (float(os.environ.get(name, "inf")) for name in (END, WALL))
    return wall < float("inf") and end - start > WHOLE * wall


def seconds_left() -> float:
    """Seconds until the job's wall time ends; infinite without a limit."""
    return float(os.environ.get(END, "inf")) - time.time()


def ending() -> bool:
    """Whether USR2 now means that the wall time ends. Long before the end it is a notice of preemption."""
    return seconds_left() < float(os.environ.get(WARNING, COARSE)) + COARSE
