"""The table that was asked for, in its form."""

from __future__ import annotations

import pandas as pd

from blip2sweep.errors import UserError
from blip2sweep.reporting.short_table import short_table
from blip2sweep.reporting.table_asked import Asked
from blip2sweep.reporting.table_cells import DIGITS, NONE, best_of, better, competing, groups_of, texts
from blip2sweep.reporting.table_rows import Pivot, chosen_columns, pivot
from blip2sweep.reporting.table_text import Shown, csv_text, json_text, latex, markdown
from blip2sweep.results.schema import every_column

NO_BEST = "--best: none of these columns has a best value; right: a metric, drop_… or retained_… among them"


def as_data(rows: pd.DataFrame, asked: Asked) -> str:
    """The rows for a program, as CSV or JSON: chosen columns, a pivot, or every column there is."""
    found = (
        pivot(rows, asked).frame
        if asked.axes
        else chosen_columns(rows, asked.named)
        if asked.named
        else every_column(rows)
    )
    return csv_text(found, asked.digits) if asked.format == "csv" else json_text(found, asked.digits)


def as_text(rows: pd.DataFrame, asked: Asked) -> str:
    """The rows for people, as Markdown or LaTeX."""
    shown, _ = for_people(rows, asked)
    return markdown(shown) if asked.format == "md" else latex(shown, asked.caption, asked.label)


def for_people(rows: pd.DataFrame, asked: Asked) -> tuple[Shown, list[str]]:
    """(the table as texts, what is not in it). Raises UserError where no column has a best value, and it was asked for."""
    if asked.axes:
        found = pivot(rows, asked)
        return _of_pivot(found, asked), found.left_out
    if asked.named:
        chosen = chosen_columns(rows, asked.named)
        return _marked(texts(chosen, list(map(str, chosen)), asked.digits), rows, asked), []
    return _marked(short_table(rows, DIGITS if asked.digits is None else asked.digits), rows, asked), []


def _marked(shown: pd.DataFrame, rows: pd.DataFrame, asked: Asked) -> Shown:
    """The table with the best of each column, if that was asked for."""
    if not asked.best:
        return Shown(shown)
    columns = list(map(str, shown))
    _check_best(columns)
    return Shown(shown, best_of(shown, columns, competing(rows), groups_of(rows)))


def _check_best(columns: list[str]) -> None:
    if not any(map(better, columns)):
        raise UserError(NO_BEST)


def _of_pivot(found: Pivot, asked: Asked) -> Shown:
    """A pivot as texts, with a dash where no cell is."""
    columns = [*found.rows, *[found.value] * len(found.heads)]
    shown = texts(found.frame, columns, asked.digits)
    width = len(found.rows)
    shown.iloc[:, width:] = shown.iloc[:, width:].replace("", NONE)
    best = None
    if asked.best:
        _check_best([found.value])
        best = best_of(shown, columns, [True] * len(shown), [0] * len(shown))
        best.iloc[:, :width] = False
    spanned = asked.format == "latex"
    heads = found.heads if spanned else list(found.frame.columns[width:])
    shown = shown.set_axis([*found.rows, *heads], axis=1)
    return Shown(shown, best, (found.across, len(heads)) if spanned else None, tuple(found.baselines))
