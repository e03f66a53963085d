"""`blip2sweep table`: prints what the journals hold now. Where nothing is new, it reads the tables that exist."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd

from blip2sweep.analysis.largest import largest_kind
from blip2sweep.analysis.models import models_of
from blip2sweep.console.printing import as_data, say, say_text
from blip2sweep.errors import UserError
from blip2sweep.files import write_atomic
from blip2sweep.reporting import table_shown
from blip2sweep.reporting.embedded import embedded_note
from blip2sweep.reporting.table_asked import Asked, refuse
from blip2sweep.reporting.table_baselines import absent_baselines
from blip2sweep.reporting.table_heads import with_columns
from blip2sweep.reporting.table_notes import notes
from blip2sweep.reporting.table_rows import chosen_rows, in_order, pivot
from blip2sweep.reporting.table_where import condition
from blip2sweep.reporting.terminal import print_shown
from blip2sweep.results.latest import ALL, newer_runs, not_scored, sweep_or_all, up_to_date
from blip2sweep.results.sweeps import Sweep
from blip2sweep.results.table import older_rows

OPTION = re.compile(r"--(?:(model|task) |only )")  # of other verbs, which choose a kind of cells by it


def show_table(output_dir: Path, name: str | None, all_cells: bool, asked: Asked) -> None:
    """Print the table of a sweep, or of the whole ledger. Raises UserError with all mistakes of the options."""
    asked = replace(asked, format=asked.written)
    if name is not None and condition(name) is not None:
        refuse([*asked.mistakes(), f"{name}: a condition, and no sweep; right: --where {name}"])
    found, table, said = _read(output_dir, name, all_cells, asked.mistakes())
    asked = with_columns(asked, table)
    refuse([*asked.mistakes(), *asked.mistakes_in(table)])
    current, earlier = table[~table["stale"]], older_rows(Counter(table.loc[table["stale"], "semantics"].astype(int)))
    said += [*([earlier] if earlier else []), *not_scored(current, output_dir, found)]
    said = [*(newer_runs(output_dir, found) if found and name is None else []), *said]
    rows, left_out = chosen_rows(in_order(current) if all_cells else current, asked), list[str]()
    if all_cells:
        rows, left_out = _comparable(rows, asked)
    said = [*absent_baselines(rows, output_dir), *said]
    title = f"sweep {found.name}" if found else ALL
    if asked.format in ("csv", "json"):
        apart = pivot(rows, asked).left_out if asked.axes else []
        _print_data(table_shown.as_data(rows, asked), title, [*apart, *left_out, *said], asked.out)
    elif asked.format != "rich":
        _print_data(table_shown.as_text(rows, asked), title, [*left_out, *said], asked.out)
    else:
        _print_rich(rows, title, asked, [*left_out, *said])


def _read(
    output_dir: Path, name: str | None, all_cells: bool, mistakes: list[str]
) -> tuple[Sweep | None, pd.DataFrame, list[str]]:
    """The sweep, its table and remarks. mistakes: of the options, told with what is wrong here."""
    try:
        found = sweep_or_all(output_dir, name, all_cells)
        return found, *up_to_date(output_dir, found)
    except UserError as error:
        refuse([*mistakes, str(error)] if mistakes else [])
        raise


def _comparable(rows: pd.DataFrame, asked: Asked) -> tuple[pd.DataFrame, list[str]]:
    """All rows, and what the other verbs leave out of them. A pivot, and the best of a column, compare cells: they are of
    the largest kind."""
    largest, left_out = largest_kind(rows)
    left_out = [OPTION.sub(_as_where, line) for line in left_out]
    if asked.axes or asked.best:
        return largest, left_out
    return rows, [
        f"report, recommend, suggest, --pivot and --best compare {len(largest)} of these: {n}" for n in left_out
    ]


def _as_where(option: re.Match[str]) -> str:
    return f"--where {option[1]}=" if option[1] else "--where "


def _print_data(text: str, title: str, said: list[str], out: Path | None) -> None:
    if out is not None:
        write_atomic(out, text.encode())
        say(title, *said, f"wrote {out}")
        return
    as_data()
    say_text(text.rstrip("\n"))
    say(title, *said, err=True)


def _print_rich(rows: pd.DataFrame, title: str, asked: Asked, said: list[str]) -> None:
    if len(rows):
        shown, missing = table_shown.for_people(rows, asked)
        print_shown(shown, title, asked.chosen)
        told = [*filter(None, [embedded_note(models_of(rows))])] if asked.chosen else notes(rows)
        said = [*missing, *told, *said]
    for line in said:
        say(line)
