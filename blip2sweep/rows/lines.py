"""JSON Lines: one object a line. Mistakes are named by their line, and all of them are reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blip2sweep.errors import UserError
from blip2sweep.rows.fields import shown
from blip2sweep.rows.json_file import parse, read_text
from blip2sweep.rows.mistakes import Mistakes
from blip2sweep.rows.row_list import Row, RowList


@dataclass(frozen=True)
class LineList(RowList):
    """A list of objects that stand on lines of a file. lines: the number of each, from 1 on."""

    lines: Sequence[int] = ()

    def place(self, i: int) -> str:
        return f"line {self.lines[i]}"


def read_lines(path: Path, right: str, mistakes: Mistakes) -> tuple[list[int], list[Row]]:
    """The numbers of the lines that hold something, and their objects. Lines that are no JSON objects are noted.

    Raises UserError for a file that is missing, unreadable, not UTF-8 or empty.
    """
    lines, rows = list[int](), list[Row]()
    # Not splitlines(): it also splits at characters that JSON allows inside a string.
    for number, line in enumerate(read_text(path, right).split("\n"), 1):
        row = _object(path, line, right, number, mistakes) if line.strip() else None
        if row is not None:
            lines.append(number)
            rows.append(row)
    if not rows and not mistakes.count:
        raise UserError(f"{path}: empty; right: {right}")
    return lines, rows


def _object(path: Path, line: str, right: str, number: int, mistakes: Mistakes) -> Row | None:
    try:
        row = parse(line, "", right, number)
    except UserError as error:
        mistakes.add(path, f"line {number}", str(error).removeprefix(": "))
        return None
    if isinstance(row, dict):
        return row
    mistakes.add(path, f"line {number}", f"is {shown(row)}; right: an object with image and more")
    return None
