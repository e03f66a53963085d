"""Reads CSV files as people save them: comma, semicolon or tab, a BOM, comments, trailing commas, blank lines."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from blip2sweep.console.printing import fused
from blip2sweep.errors import UserError
from blip2sweep.importing.mistakes import Mistakes

DELIMITERS = ("\t", ";", ",")
BLANK = ("", "nan", "na", "n/a", "null", "<na>", "#n/a")


@dataclass(frozen=True)
class Line:
    """One line below the header. number: its number in the file, from 1; cells: column -> text, without blank cells."""

    number: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A file's columns in order, and its lines. unnamed: number of columns without a heading, such as pandas' index."""

    path: Path
    columns: list[str]
    lines: list[Line]
    delimiter: str
    unnamed: int = 0

    def values(self, column: str) -> list[tuple[int, str]]:
        """(line, text) of the cells that are not blank."""
        return [(x.number, x.cells[column]) for x in self.lines if column in x.cells]


def read_table(path: Path, mistakes: Mistakes) -> Table:
    """The table in a file. Ragged lines are added to the mistakes. Raises UserError where there is no table at all."""
    text = _without_comments(_text(path))
    stated = re.match(r"sep=(.)\r?\n", text)  # a first line that Excel writes
    delimiter = stated[1] if stated else _delimiter(text)
    rows = _rows(path, text, delimiter)[1 if stated else 0 :]
    if len(rows) < 2:
        raise UserError(
            f"{path}: {'a header and no line' if rows else 'empty'}; right: a header and a line for each cell"
        )
    header = _header(rows[0][1])
    _check_header(header, rows[0][0], mistakes)
    lines = [Line(n, _cells(header, row, n, mistakes)) for n, row in rows[1:]]
    return Table(path, [h for h in header if h], lines, delimiter, header.count(""))


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); right: a CSV file") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {line}: cannot be read as UTF-8 text; right: a CSV file saved as UTF-8"
        ) from error


def _without_comments(text: str) -> str:
    """The text with blank lines in place of comments, so that all other lines keep their numbers.

    A comment begins with `#`. `#,` begins a header whose first column is called `#`.
    """
    return re.sub(r"^#(?![,;\t]).*$", "", text, flags=re.MULTILINE)


def _delimiter(text: str) -> str:
    """The delimiter that is most frequent in the header, outside quotes."""
    header = next((x for x in text.splitlines() if x.strip()), "")
    outside = re.sub(r'"[^"]*"', "", header)
    return max(DELIMITERS, key=lambda d: (outside.count(d), d == ","))


def _rows(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """(number of its first line, cells) of every line that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows, start = [], 1
    try:
        for row in reader:
            cells = [c.strip() for c in row]
            if any(cells):
                rows.append((start, cells))
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}, line {start}: no CSV ({error}); right: quotes closed, and doubled within quotes"
        ) from error
    return rows


def _header(cells: list[str]) -> list[str]:
    while cells and not cells[-1]:
        cells = cells[:-1]
    return [fused(" ".join(c.split())) for c in cells]


def _check_header(header: list[str], line: int, mistakes: Mistakes) -> None:
    for name in dict.fromkeys(header):
        if name and header.count(name) > 1:
            mistakes.add(f"{header.count(name)} columns are called {name}; right: one", line)


def _cells(header: list[str], row: list[str], line: int, mistakes: Mistakes) -> dict[str, str]:
    if any(row[len(header) :]) or len(row) < len(header):
        mistakes.add(f"{len(row)} cells below {len(header)} columns; right: one for each column", line)
    named = zip(header, row, strict=False)  # cells beyond the header are blank, or a mistake
    return {h: fused(c) for h, c in named if h and c.lower() not in BLANK}
