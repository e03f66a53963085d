"""`blip2sweep table`: reads what collecting wrote; where nothing did yet, it collects."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from blip2sweep.collect import collect
from blip2sweep.errors import UserError, nearest
from blip2sweep.printing import as_data, say, say_text
from blip2sweep.report.terminal import FORMATS, notes, print_table, render
from blip2sweep.sweep.sweeps import Sweep, find_results, passed_over

ALL = "all cells"


def show_table(output_dir: Path, name: str | None, fmt: str, all_cells: bool) -> None:
    """Print a sweep's table, or that of the whole ledger."""
    if fmt not in FORMATS:
        raise UserError(f"--format {fmt}: unknown format; {nearest(fmt, FORMATS)}")
    found = None if all_cells else find_results(output_dir, name)
    path = (found.folder(output_dir) if found else output_dir) / "table.parquet"
    if not path.exists() and any((output_dir / "journals").glob("*.jsonl")):
        collect(output_dir, found)  # the sweep runs yet, or was stopped
    table = read_table(path)
    current, stale = table[~table["stale"]], int(table["stale"].sum())
    newer = newer_runs(output_dir, found) if found and name is None else []
    if fmt != "rich":
        as_data()
        say_text(render(current, fmt).rstrip("\n"))
        say(f"sweep {found.name}" if found else ALL, *newer, err=True)
        return
    print_table(current, f"sweep {found.name}" if found else ALL)
    for line in [*notes(current), *newer, *([f"{stale} rows of older semantics are left out"] if stale else [])]:
        say(line)


def newer_runs(output_dir: Path, sweep: Sweep) -> list[str]:
    """What is newer than a sweep that was not named, and not shown."""
    names = passed_over(output_dir, sweep)
    many = f"{len(names)} newer runs of one cell are" if len(names) > 1 else "a newer run of one cell is"
    return [f"{many} not shown; the last is {names[-1]}"] if names else []


def read_table(path: Path) -> pd.DataFrame:
    """A table.parquet; UserError when there is none, or no row in it."""
    if not path.exists():
        raise UserError(f"{path}: no table yet; right: run the sweep, or wait for its first cell")
    table = pd.read_parquet(path)
    if table.empty:
        raise UserError(f"{path}: the table has no rows; right: wait for the sweep's first cell")
    return table
