"""Follows a sweep through the ledger: a progress bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from blip2sweep.ledger import Ledger
from blip2sweep.sweep.live import Live, live
from blip2sweep.sweep.status import Status, sweep_status
from blip2sweep.sweep.sweeps import Sweep

LEDGER_SECONDS = 0.3
SLURM_SECONDS = 5.0  # squeue is the controller's time: it is asked no more often, and less often where it is slow
LINE_SECONDS = 15

Look = Callable[[], Live]


def follow(output_dir: Path, sweep: Sweep, look: Look | None = None) -> Status:
    """Until every cell has a result, or nothing more will come by itself. look: which packs are alive now."""
    ledger, console = Ledger(output_dir, only=sweep.keys, brief=True), Console(stderr=True)
    now = Watch(look or (lambda: live(sweep)), 0.0 if look else SLURM_SECONDS)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    said = time.monotonic()
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("cells", total=len(sweep.keys))
        while True:
            status = sweep_status(output_dir, sweep, ledger, now())
            done, failed = status.counts["done"], status.counts["failed"]
            bar.update(task, completed=done + failed, description=f"cells ({failed} failed)" if failed else "cells")
            if done == len(sweep.keys) and scored(output_dir, sweep):
                return status
            if now.fresh and (not status.live or (status.settled and not status.live.known)):
                return status
            if not sys.stderr.isatty() and time.monotonic() - said > LINE_SECONDS:
                said = time.monotonic()
                console.print(status.summary(), highlight=False)
            time.sleep(LEDGER_SECONDS)


def scored(output_dir: Path, sweep: Sweep) -> bool:
    """Whether every cell has its statistics: they are written beside the next cell's work, after the result."""
    try:
        return {name.partition("-")[0] for name in os.listdir(output_dir / "scores")}.issuperset(sweep.keys)  # noqa: PTH208
    except FileNotFoundError:
        return False


class Watch:
    """Asks what is alive, at most every so many seconds. fresh: the last answer was asked for just now."""

    def __init__(self, look: Look, every: float) -> None:
        self.look, self.every = look, every
        self.fresh = False
        self._asked = -1e9
        self._last = Live()

    def __call__(self) -> Live:
        self.fresh = time.monotonic() - self._asked >= self.every
        if self.fresh:
            start = time.monotonic()
            self._last, self._asked = self.look(), time.monotonic()
            self.every = max(self.every, 20 * (self._asked - start)) if self.every else 0.0
        return self._last
