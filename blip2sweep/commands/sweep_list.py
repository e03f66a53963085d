"""`blip2sweep sweeps`: every sweep of a folder with its age, its cells, its state and the command it came from."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TypedDict

from blip2sweep.console.printing import cell, console, say, say_text
from blip2sweep.console.remarks import many, some
from blip2sweep.errors import UserError
from blip2sweep.results.forgotten import acts
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.sweeps import Sweep, list_sweeps
from blip2sweep.running.queue import QueueState
from blip2sweep.running.status import STATES, duration, sweep_status

FORMATS = ("rich", "json")
DAY = 86400.0
SETTLED = QueueState()  # of a sweep whose cells are all done: nobody is asked


class Listed(TypedDict):
    """One sweep. created: seconds since 1970. states: {state: cells}."""

    name: str
    created: float
    cells: int
    states: dict[str, int]
    command: str


def print_sweeps(output_dir: Path, fmt: str) -> None:
    """Print the sweeps, the newest last. Raises UserError for an unknown format, and for a folder without sweeps."""
    if fmt not in FORMATS:
        raise UserError(f"--format {fmt}: unknown format; right: {' or '.join(FORMATS)}")
    found, gone = listed(output_dir), forgotten(output_dir)
    if not found and not gone:
        raise UserError(f"{output_dir}: no sweep here; right: --output-dir of a sweep, or run one")
    if fmt == "json":
        say_text(json.dumps(found, indent=2))
        return
    _print(found)
    if gone:
        say(f"forgotten: {gone}; `blip2sweep forget --undo` takes the last back")


def forgotten(output_dir: Path) -> str:
    """`2 sweeps (one, two), 7 cells`; empty where nothing is."""
    there = acts(output_dir)
    hidden = {sweep for act in there for sweep in act.sweeps}
    names = [s.name for s in list_sweeps(output_dir, forgotten=True) if (s.name, s.created) in hidden]
    cells = {key for act in there for key in act.keys}
    told = [f"{many(len(names), 'sweep')} ({some(names)})"] if names else []
    return ", ".join([*told, *([many(len(cells), "cell")] if cells else [])])


def listed(output_dir: Path) -> list[Listed]:
    """The sweeps of a folder, the oldest first. The queue is asked about those alone that have cells without a result."""
    ledger = Ledger(output_dir, brief=True).refresh()
    hidden = {key for act in acts(output_dir) for key in act.keys}
    return [_listed(output_dir, sweep, ledger, hidden) for sweep in list_sweeps(output_dir)]


def _listed(output_dir: Path, sweep: Sweep, ledger: Ledger, hidden: set[str]) -> Listed:
    """hidden: the cells that were forgotten, which the ledger does not have any more."""
    gone = sum(key in hidden and not sweep.done(ledger, key) for key in sweep.keys)
    done = all(sweep.done(ledger, key) for key in sweep.keys)
    counts = sweep_status(output_dir, sweep, ledger, SETTLED if done else None).counts
    left = {state: counts[state] - (gone if state == "lost" else 0) for state in STATES}
    states = {state: n for state, n in {**left, "forgotten": gone}.items() if n > 0}
    return Listed(name=sweep.name, created=sweep.created, cells=len(sweep.keys), states=states, command=sweep.command)


def _print(found: list[Listed]) -> None:
    from rich.table import Table

    screen = console()
    table = Table("sweep", "age", "cells", "state", "command")
    table.columns[2].justify = "right"
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    for one in found:
        age = _age(time.time() - one["created"])
        words = one["name"], age, str(one["cells"]), _state(one), one["command"]
        table.add_row(*map(cell, words))
    screen.print(table)


def _state(one: Listed) -> str:
    """`done`, or `3 done, 1 failed`."""
    return "done" if set(one["states"]) == {"done"} else ", ".join(f"{n} {s}" for s, n in one["states"].items())


def _age(seconds: float) -> str:
    """`45 s`, `3.5 h`, `12 d`."""
    return f"{seconds / DAY:.0f} d" if seconds > 2 * DAY else duration(max(0.0, seconds))
