"""The end of a sweep: collect, print, track; the same for a sweep that was followed, waited for or retried."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from blip2sweep.ledger import Ledger
from blip2sweep.sweep.status import sweep_status, told
from blip2sweep.sweep.sweeps import Sweep


class SweepFailed(Exception):
    """Some cells failed; the message is the summary by kind."""


def finish(output_dir: Path, sweep: Sweep) -> Any:
    """Write the tables, print the sweep's, send it where it is tracked. Returns the sweep's table."""
    from blip2sweep.collect import collect
    from blip2sweep.report.dropoff import draw_dropoff
    from blip2sweep.report.terminal import print_sweep
    from blip2sweep.report.tracking import track

    table = collect(output_dir, sweep)
    picture = draw_dropoff(table, sweep.folder(output_dir) / "dropoff.png") if len(table) else None
    print_sweep(table, sweep, output_dir, picture)
    if sweep.tracking.get("name"):
        track(output_dir, sweep, table, sweep.tracking)
    return table


def check_all_done(output_dir: Path, sweep: Sweep) -> None:
    """Raises SweepFailed with the summary by kind when a cell has no result."""
    status = sweep_status(output_dir, sweep, Ledger(output_dir, only=sweep.keys, brief=True))
    gone = [k for k, state in status.states.items() if state != "done"]
    if gone:
        raise SweepFailed(told(gone, len(sweep.keys), status.failures, silent(output_dir, sweep)))


def silent(output_dir: Path, sweep: Sweep) -> str | None:
    """Why no worker of the newest launch wrote a line: what its log says, or that there is none."""
    run = sweep.runs[-1] if sweep.runs else ""
    if not run or any(w["run"] == run for w in Ledger(output_dir, only=()).refresh().workers):
        return None
    folder = sweep.logs(output_dir, run)
    said = [line for path in sorted(folder.glob("*")) if path.is_file() for line in _errors(path)]
    if said:
        return f"no worker could begin: {said[-1]}"
    return f"no worker wrote to {output_dir} or to {folder}: is output_dir on a file system that the nodes share?"


def _errors(path: Path) -> list[str]:
    if path.suffix not in (".out", ".err", ".log"):
        return []
    lines = path.read_text(errors="replace").splitlines()
    return [x for x in lines if "rror" in x and not x.startswith("srun: ")][-1:] or lines[-1:]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
