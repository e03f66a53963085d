"""Follows a sweep in the ledger: with a progress bar on a terminal and in a notebook, with a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from blip2sweep.console.bar import Bar, verbose, watched
from blip2sweep.console.printing import console
from blip2sweep.console.remarks import many
from blip2sweep.files import on_network
from blip2sweep.results.latency import left_to_time, not_timed, untimed
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.sweeps import Sweep
from blip2sweep.results.unscored import scored, scoring
from blip2sweep.running.queue import QueueState, queue_state
from blip2sweep.running.status import UNKNOWN, PackKeys, Status, sweep_status, warnings

LEDGER_SECONDS = 0.3
SLURM_SECONDS = 5.0  # between two calls of squeue, which load Slurm's controller; longer when it is slow
LINE_SECONDS = 15
NETWORK_SECONDS = 60.0  # NFS may show an old directory or file for so long
PASSING = ("None", "Priority", "Resources", "Dependency", "BeginTime", "JobArrayTaskLimit", "Cleaning", "Prolog")

ReadQueue = Callable[[], QueueState]


def follow(
    output_dir: Path,
    sweep: Sweep,
    read_queue: ReadQueue | None = None,
    ledger: Ledger | None = None,
    is_scored: bool = False,
) -> Status:
    """Follow a sweep until every cell has a result and a score, or nothing will change any more. Then print the
    workers' warnings.

    read_queue: returns which packs have a process; None asks Slurm. ledger: of the sweep's keys, where the caller has
    read one. is_scored: what `scored` has just said.
    """
    ledger, screen = ledger or Ledger(output_dir, only=sweep.keys, brief=True), console(err=True)
    status = _follow(output_dir, sweep, read_queue, ledger, screen, is_scored)
    for line in warnings(ledger.refresh(), sweep):
        screen.print(f"warning: {line}", soft_wrap=True)
    if missing := untimed(ledger, sweep):
        screen.print(f"warning: {not_timed(sweep, missing)}", soft_wrap=True)
    return status


def _follow(
    output_dir: Path, sweep: Sweep, read_queue: ReadQueue | None, ledger: Ledger, screen: Console, is_scored: bool
) -> Status:
    """The loop of `follow`."""
    now = QueueWatch(read_queue or (lambda: queue_state(sweep, output_dir)), 0.0 if read_queue else SLURM_SECONDS)
    last_line, waiting, packs = time.monotonic(), "", PackKeys()
    with Bar("cells", len(sweep.keys), screen) as bar:
        while True:
            status = sweep_status(output_dir, sweep, ledger, now(), packs)
            done, failed = status.counts["done"], status.counts["failed"]
            told = "; ".join([*([f"{failed} failed"] if failed else []), *([status.stopped] if status.stopped else [])])
            bar.update(done + failed, f"cells ({told})" if told else "cells")
            all_done = done == len(sweep.keys) and (is_scored or scored(output_dir, sweep))
            if all_done and not (left := left_to_time(ledger, sweep)):
                status.at_once = is_scored
                return status
            is_scored = False  # results may have come since
            if now.fresh and (reason := stuck(status.queue)) != waiting:
                waiting = reason
                screen.print(reason or "Slurm answers, and holds no job back")
            if now.fresh and (not status.queue or (status.settled and not status.queue.known)):
                return settled(output_dir, sweep, ledger, status)
            if verbose() and done == len(sweep.keys) and time.monotonic() - last_line > LINE_SECONDS:
                last_line = time.monotonic()
                timing = (
                    f"every cell is done and scored; {len(left)} {'are' if len(left) > 1 else 'is'} not timed yet"
                    if all_done
                    else None
                )
                screen.print(timing or scoring(output_dir, sweep))
            if verbose() and not watched() and time.monotonic() - last_line > LINE_SECONDS:
                last_line = time.monotonic()
                screen.print(status.summary())
            time.sleep(LEDGER_SECONDS)


def settled(output_dir: Path, sweep: Sweep, ledger: Ledger, status: Status) -> Status:
    """The status when no process is left. A network file system shows the last lines of another host late, so it is
    read again for a while."""
    deadline = time.monotonic() + NETWORK_SECONDS
    while status.keys("lost") and on_network(output_dir) and time.monotonic() < deadline:
        time.sleep(1)
        status = sweep_status(output_dir, sweep, ledger.reopen(), status.queue)
    return status


def stuck(queue: QueueState) -> str:
    """Why nothing may ever happen, in one line. Empty when jobs run, or wait for a reason that passes by itself."""
    if not queue.known:
        return f"{UNKNOWN}; the ledger is followed"
    waiting = {reason: n for reason, n in queue.pending.items() if reason not in PASSING}
    return "; ".join(f"Slurm lets {many(n, 'job')} wait: {reason}" for reason, n in waiting.items())


class QueueWatch:
    """Reads the queue, at most once in `every` seconds. fresh: whether the last call read it."""

    def __init__(self, read_queue: ReadQueue, every: float) -> None:
        self.read_queue, self.every = read_queue, every
        self.fresh = False
        self._read_at = -1e9
        self._last = QueueState()

    def __call__(self) -> QueueState:
        self.fresh = time.monotonic() - self._read_at >= self.every
        if self.fresh:
            start = time.monotonic()
            self._last, self._read_at = self.read_queue(), time.monotonic()
            self.every = max(self.every, 20 * (self._read_at - start)) if self.every else 0.0
        return self._last
