"""The doctor's report on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from blip2sweep.console.printing import cell, console
from blip2sweep.doctor.checks import FAIL, OK, WARN, examine, examine_cell

COLOURS = {OK: "green", WARN: "yellow", FAIL: "red"}


def print_checks(output_dir: Path, config: Mapping[str, Any] | None) -> int:
    """Print every check, the cell's own last. Returns the exit code: 1 when one failed."""
    checks = [*examine(output_dir), *(examine_cell(config) if config else [])]
    drawn = Table(show_header=False, box=None)
    drawn.add_column(no_wrap=True)
    drawn.add_column(no_wrap=True)
    drawn.add_column(overflow="fold")
    for check in checks:
        drawn.add_row(cell(check.state, COLOURS[check.state]), cell(check.name), cell(check.message))
    console().print(drawn)
    return int(any(c.state == FAIL for c in checks))
