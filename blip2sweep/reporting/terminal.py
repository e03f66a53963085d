"""The table on the terminal: the columns to read first, as many as fit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
from rich.cells import cell_len
from rich.table import Table

from blip2sweep.console.printing import cell, console, shown
from blip2sweep.metrics.statistics import main_metrics
from blip2sweep.reporting.lines_before import said_before
from blip2sweep.reporting.part_roles import by_role
from blip2sweep.reporting.short_table import short_table
from blip2sweep.reporting.table_baselines import absent_baselines
from blip2sweep.reporting.table_notes import notes
from blip2sweep.reporting.table_text import Shown
from blip2sweep.results.sweeps import Sweep

MOST_ROWS = 200  # at the end of a sweep; `blip2sweep table` prints all rows
# Left out in this order where a terminal is too narrow for all. The cell's name and its drop stay.
LEAST = (
    "ms",
    "baseline ms",
    "× baseline",
    "× torch",
    "merged",
    "in torch",
    "bits/weight",
    "its interval",
    "key",
)  # then metrics
RIGHT = (
    "bits",
    "drop",
    "in torch",
    "drop to control",
    "bits/weight",
    "ms",
    "baseline ms",
    "× baseline",
    "× torch",
)  # besides metrics
KEY_LETTERS = 6  # of a key where the whole has no room; a beginning names a cell if no other cell has it


def print_sweep(table: pd.DataFrame, sweep: Sweep, output_dir: Path, picture: Path | None) -> None:
    """Print the table of a sweep, its notes, and where its files are."""
    screen = console()
    if table.empty:
        screen.print("no rows yet")
        return
    print_table(by_role(table).head(MOST_ROWS), f"sweep {sweep.name}")
    if len(table) > MOST_ROWS:
        screen.print(f"and {len(table) - MOST_ROWS} more rows: blip2sweep table {sweep.name}")
    for line in [*notes(table), *absent_baselines(table, output_dir), *_prices(table, sweep, output_dir)]:
        screen.print(line, soft_wrap=True)
    tables = (sweep.folder(output_dir) / "table.parquet", output_dir / "table.parquet", output_dir / "samples.parquet")
    for path in (*tables, picture):
        if path is None:
            continue
        screen.print(f"wrote {path}", soft_wrap=True)


def _prices(table: pd.DataFrame, sweep: Sweep, output_dir: Path) -> list[str]:
    """What the next bits cost; nothing for large sweeps, where it takes long and the report has it."""

    def made() -> list[str]:
        from blip2sweep.reporting.prices import terminal_prices

        return terminal_prices(output_dir, table, sweep.command)

    return said_before(table, output_dir, sweep.command, made) if len(table) <= MOST_ROWS else []


def print_table(table: pd.DataFrame, title: str) -> None:
    """The columns to read first: as many as fit, whole, and which do not."""
    print_shown(Shown(short_table(table)), title)


def print_shown(table: Shown, title: str, chosen: bool = False) -> None:
    """A table of texts. Columns that do not fit are left out and named, but not those that were chosen.

    Where nobody looks at a terminal, such as in a pipe, all of them are there.
    """
    texts, screen = table.texts.rename(columns=shown).map(shown), console()
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        screen.width = max(screen.width, _width(texts))
    fitting, others = (texts, list[str]()) if chosen else fitted(texts, screen.width)
    best = None if table.best is None else table.best.rename(columns=shown)[list(fitting)]
    right = [str(c) for c, numeric in zip(texts, table.numeric, strict=True) if numeric] if chosen else []
    screen.print(rich_table(fitting, title, best, right))
    if others:
        hint = f"no room for {', '.join(others)}: a wider terminal, or --format csv, has them"
        screen.print(hint, soft_wrap=True)


def fitted(short: pd.DataFrame, width: int) -> tuple[pd.DataFrame, list[str]]:
    """The columns that a width has room for, keys by their beginnings if need be, and the names of those that it has
    not.
    """
    dropped: list[str] = []
    if _width(short) > width and "key" in short:
        short = short.assign(key=_beginnings(short["key"]))
    for column in (c for c in (*LEAST, *main_metrics()) if c in short):
        if _width(short.drop(columns=dropped)) <= width:
            break
        dropped.append(column)
    return short.drop(columns=dropped), dropped


def _beginnings(keys: pd.Series) -> pd.Series:
    """The shortest beginnings that tell the keys apart."""
    letters = next((n for n in range(KEY_LETTERS, 12) if keys.str[:n].nunique() == keys.nunique()), 12)
    return keys.str[:letters]


def _width(short: pd.DataFrame) -> int:
    """Of the table as it is drawn: two blanks and a line a column."""
    return 1 + sum(3 + max(cell_len(str(v)) for v in [c, *short[c]]) for c in short)


def rich_table(
    short: pd.DataFrame, title: str | None = None, best: pd.DataFrame | None = None, right: Sequence[str] = ()
) -> Table:  # fmt: skip
    """A rich table with numbers to the right. best: the cells in bold. right: further columns of numbers."""
    named = None if title is None else cell(title)
    drawn = Table(title=named, header_style="bold", row_styles=["", "dim"] if len(short) > 30 else None)
    for column in short:
        whole = column in ("key", "drop", "95 % interval", "drop to control", "its interval")
        justify: Literal["left", "right"] = "right" if column in (*RIGHT, *main_metrics(), *right) else "left"
        drawn.add_column(str(column), justify=justify, no_wrap=whole, overflow="fold")
    bold = best.to_numpy().tolist() if best is not None else [[False] * short.shape[1]] * len(short)
    for row, marks in zip(short.itertuples(index=False), bold, strict=True):
        drawn.add_row(*(cell(v, "bold" if mark else "") for v, mark in zip(row, marks, strict=True)))
    return drawn
