"""`blip2sweep table`: prints what the journals hold now. Where nothing is new, it reads the tables that exist."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from blip2sweep.console.printing import as_data, say, say_text
from blip2sweep.errors import UserError, nearest
from blip2sweep.reporting.table_notes import notes
from blip2sweep.reporting.terminal import FORMATS, print_table, render
from blip2sweep.results.latest import ALL, newer_runs, not_scored, up_to_date
from blip2sweep.results.sweeps import find_results
from blip2sweep.results.table import older_rows


def show_table(output_dir: Path, name: str | None, fmt: str, all_cells: bool) -> None:
    """Print the table of a sweep, or of the whole ledger."""
    if fmt not in FORMATS:
        raise UserError(f"--format {fmt}: unknown format; {nearest(fmt, FORMATS)}")
    found = None if all_cells else find_results(output_dir, name)
    table, said = up_to_date(output_dir, found)
    current, earlier = table[~table["stale"]], older_rows(Counter(table.loc[table["stale"], "semantics"].astype(int)))
    said += [*([earlier] if earlier else []), *not_scored(current, output_dir, found)]
    newer = newer_runs(output_dir, found) if found and name is None else []
    if fmt != "rich":
        as_data()
        say_text(render(current, fmt).rstrip("\n"))
        say(f"sweep {found.name}" if found else ALL, *newer, *said, err=True)
        return
    if len(current):
        print_table(current, f"sweep {found.name}" if found else ALL)
    for line in [*(notes(current) if len(current) else []), *newer, *said]:
        say(line)
