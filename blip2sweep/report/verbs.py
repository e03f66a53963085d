"""`blip2sweep table`: reads what collecting wrote, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console

from blip2sweep.errors import UserError, nearest
from blip2sweep.report.terminal import FORMATS, notes, render, rich_table, short_table
from blip2sweep.sweep.sweeps import find_sweep


def show_table(output_dir: Path, name: str | None, fmt: str, all_cells: bool) -> None:
    """Print a sweep's table, or that of the whole ledger."""
    if fmt not in FORMATS:
        raise UserError(f"--format {fmt}: unknown format; {nearest(fmt, FORMATS)}")
    folder = output_dir if all_cells else find_sweep(output_dir, name).folder(output_dir)
    table = read_table(folder / "table.parquet")
    current, stale = table[~table["stale"]], int(table["stale"].sum())
    if fmt != "rich":
        print(render(current, fmt), end="")
        return
    console = Console(highlight=False)
    console.print(rich_table(short_table(current), title=None if all_cells else folder.name))
    for line in [*notes(current), *([f"{stale} rows of older semantics are left out"] if stale else [])]:
        console.print(line, markup=False)


def read_table(path: Path) -> pd.DataFrame:
    """A table.parquet; UserError when there is none, or no row in it."""
    if not path.exists():
        raise UserError(f"{path}: no table yet; right: run the sweep, or wait for its first cell")
    table = pd.read_parquet(path)
    if table.empty:
        raise UserError(f"{path}: the table has no rows; right: wait for the sweep's first cell")
    return table
