"""Follows a sweep through the ledger: a progress bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from blip2sweep.console.printing import console
from blip2sweep.files import on_network
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.sweeps import Sweep
from blip2sweep.results.unscored import scored, scoring
from blip2sweep.running.queue import Live, live
from blip2sweep.running.status import UNKNOWN, PackKeys, Status, sweep_status, warnings

LEDGER_SECONDS = 0.3
SLURM_SECONDS = 5.0  # squeue is the controller's time: it is asked no more often, and less often where it is slow
LINE_SECONDS = 15
NETWORK_SECONDS = 60.0  # as long as NFS may show an old directory or file
PASSING = ("None", "Priority", "Resources", "Dependency", "BeginTime", "JobArrayTaskLimit", "Cleaning", "Prolog")

Look = Callable[[], Live]


def follow(output_dir: Path, sweep: Sweep, look: Look | None = None, ledger: Ledger | None = None) -> Status:
    """Until every cell has a result, or nothing more will come by itself; then what workers warned of. look: which packs
    are alive now; ledger: of these keys, where somebody has one that knows some of them already."""
    ledger, screen = ledger or Ledger(output_dir, only=sweep.keys, brief=True), console(err=True)
    status = _follow(output_dir, sweep, look, ledger, screen)
    for line in warnings(ledger.refresh(), sweep):
        screen.print(f"warning: {line}", soft_wrap=True)
    return status


def _follow(output_dir: Path, sweep: Sweep, look: Look | None, ledger: Ledger, screen: Console) -> Status:
    now = Watch(look or (lambda: live(sweep, output_dir)), 0.0 if look else SLURM_SECONDS)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    said, waiting, packs = time.monotonic(), "", PackKeys()
    with Progress(*columns, console=screen, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("cells", total=len(sweep.keys))
        while True:
            status = sweep_status(output_dir, sweep, ledger, now(), packs)
            done, failed = status.counts["done"], status.counts["failed"]
            bar.update(task, completed=done + failed, description=f"cells ({failed} failed)" if failed else "cells")
            if done == len(sweep.keys) and scored(output_dir, sweep):
                return status
            if now.fresh and (told := stuck(status.live)) != waiting:
                waiting = told
                screen.print(told or "Slurm answers, and holds no job back")
            if now.fresh and (not status.live or (status.settled and not status.live.known)):
                return settled(output_dir, sweep, ledger, status)
            if done == len(sweep.keys) and time.monotonic() - said > LINE_SECONDS:
                said = time.monotonic()
                screen.print(scoring(output_dir, sweep))
            if not sys.stderr.isatty() and time.monotonic() - said > LINE_SECONDS:
                said = time.monotonic()
                screen.print(status.summary())
            time.sleep(LEDGER_SECONDS)


def settled(output_dir: Path, sweep: Sweep, ledger: Ledger, status: Status) -> Status:
    """What is seen when nothing lives: a network file system shows the last lines of another host late."""
    deadline = time.monotonic() + NETWORK_SECONDS
    while status.keys("lost") and on_network(output_dir) and time.monotonic() < deadline:
        time.sleep(1)
        status = sweep_status(output_dir, sweep, ledger.reopen(), status.live)
    return status


def stuck(now: Live) -> str:
    """Why nothing may ever come, in one line; empty where jobs run, or wait for what passes by itself."""
    if not now.known:
        return f"{UNKNOWN}; the ledger is followed"
    held = {reason: n for reason, n in now.pending.items() if reason not in PASSING}
    return "; ".join(f"Slurm lets {n} jobs wait: {reason}" for reason, n in held.items())


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
