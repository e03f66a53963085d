"""What `blip2sweep table` was asked for: which rows, which columns, how they are sorted, and in which form."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from blip2sweep.analysis.main_metric import main_metric
from blip2sweep.errors import UserError, UserErrors, nearest
from blip2sweep.reporting.table_mistakes import nearest_column, no_condition, wrong_condition
from blip2sweep.reporting.table_where import Condition, condition
from blip2sweep.results.schema import FIXED

FORMATS = ("rich", "csv", "md", "json", "latex")
ENDINGS = {".csv": "csv", ".json": "json", ".md": "md", ".tex": "latex"}  # of files, and the format of each
DRAWN = ("rich", "md", "latex")  # formats for people, whose numbers are rounded
MOST_DIGITS = 12
LABEL = re.compile(r"[\w:.+-]+")


@dataclass(frozen=True)
class Asked:
    """The options of the verb, as they were typed. columns, sort, pivot: names with commas."""

    format: str = "rich"
    where: Sequence[str] = ()
    columns: str | None = None
    sort: str | None = None
    pivot: str | None = None
    value: str | None = None
    digits: int | None = None
    best: bool = False
    caption: str | None = None
    label: str | None = None
    out: Path | None = None

    @property
    def written(self) -> str:
        """The format: of a file by its name, where none is asked for."""
        suffix = self.out.suffix if self.out is not None and self.format == "rich" else ""
        return ENDINGS.get(suffix, self.format)

    @property
    def conditions(self) -> list[Condition]:
        """What rows have to fulfil. Words that are no condition are left out; `mistakes` has them."""
        return [c for c in map(condition, self.where) if c]

    @property
    def named(self) -> list[str]:
        """The columns to show; none where the verb chooses."""
        return _names(self.columns)

    @property
    def order(self) -> list[tuple[str, bool]]:
        """(column, whether it ascends) of the columns to sort by."""
        return [(w.removeprefix("-"), not w.startswith("-")) for w in _names(self.sort)]

    @property
    def axes(self) -> list[str]:
        """The columns of a pivot: all but the last name rows, the last names columns."""
        return _names(self.pivot)

    @property
    def chosen(self) -> bool:
        """Whether columns were chosen, so that the table is not the one that the verb shows by itself."""
        return bool(self.named or self.axes)

    def value_of(self, table: pd.DataFrame) -> str | None:
        """The column whose values a pivot has: the main metric where none is named."""
        return self.value or main_metric(table)

    def mistakes(self) -> list[str]:
        """What is wrong whatever the table has."""
        return list(self._mistakes())

    def _mistakes(self) -> Iterator[str]:
        if self.format not in FORMATS:
            yield f"--format {self.format}: unknown format; {nearest(self.format, FORMATS)}"
        if self.out is not None and self.written == "rich":
            yield f"--out {self.out}: right: a name that ends with {', '.join(ENDINGS)}, or --format"
        for text in (w for w in self.where if condition(w) is None):
            yield no_condition(text)
        for option, names in (("--columns", self.columns), ("--sort", self.sort)):
            if names is not None and not _names(names):
                yield f"{option} '{names}': no column; right: such as part,bits"
        if self.digits is not None and not 0 <= self.digits <= MOST_DIGITS:
            yield f"--digits {self.digits}: right: from 0 to {MOST_DIGITS}"
        if self.best and self.format in ("csv", "json"):
            yield f"--best: {self.format} has no bold; right: --format rich, md or latex"
        for option, given in (("--caption", self.caption), ("--label", self.label)):
            if given is not None and self.format != "latex":
                yield f"{option}: of LaTeX alone; right: --format latex"
        if self.label is not None and not LABEL.fullmatch(self.label):
            yield f"--label {self.label}: right: letters, digits and :.+-_, such as tab:drops"
        yield from self._of_pivot()

    def _of_pivot(self) -> Iterator[str]:
        if self.pivot is not None and len(set(self.axes)) < max(2, len(self.axes)):
            yield f"--pivot {self.pivot}: right: different columns, of which the last names the columns, such as part,bits"
        if self.pivot is not None and self.columns is not None:
            yield "--pivot and --columns: a pivot has columns of its own; right: one of them, and --value COLUMN"
        if self.value is not None and self.pivot is None:
            yield f"--value {self.value}: of a pivot alone; right: --pivot part,bits --value {self.value}"

    def mistakes_in(self, table: pd.DataFrame) -> list[str]:
        """What a table has not, or not of that kind."""
        known = {*map(str, table), *FIXED}
        names = {"--columns": self.named, "--sort": [n for n, _ in self.order], "--pivot": self.axes,
                 "--value": [self.value] if self.value else []}  # fmt: skip
        unknown = {(option, n): None for option, own in names.items() for n in own if n not in known}
        found = [*filter(None, [wrong_condition(c, table, known) for c in self.conditions])]
        found += [f"{option} {name}: no such column; {nearest_column(name, known)}" for option, name in unknown]
        if self.axes and self.value_of(table) is None:
            found.append("--pivot: no row has a metric; right: --value COLUMN")
        return found


def _names(text: str | None) -> list[str]:
    return [n.strip() for n in (text or "").split(",") if n.strip()]


def refuse(mistakes: Sequence[str]) -> None:
    """Raise UserError with all mistakes, if there is one."""
    if mistakes:
        raise UserErrors(mistakes) if len(mistakes) > 1 else UserError(mistakes[0])
