"""A table as CSV, JSON, Markdown or LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from blip2sweep.console.printing import defused, one_line
from blip2sweep.metrics.statistics import METRICS
from blip2sweep.recipe.part_bits import width_columns
from blip2sweep.reporting.table_cells import MINUS, NONE, is_number
from blip2sweep.results.columns import INTEGER, INTEGER_OR_MIXED
from blip2sweep.results.schema import column_of

TEX = {**{c: "\\" + c for c in "%_&#${}"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
       MINUS: "$-$", "…": r"\ldots{}", NONE: "--", "—": "---", "×": r"$\times$", "·": r"$\cdot$", "±": r"$\pm$", "≤": r"$\leq$",
       "≥": r"$\geq$", "→": r"$\rightarrow$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "<": "$<$", ">": "$>$", "|": "$|$",
       '"': "''", "\u00a0": "~", "‘": "`", "’": "'", "“": "``", "”": "''"}  # fmt: skip
ENDS = re.compile(r"(\S+)…(\S+)")  # of an interval


class Shown(NamedTuple):
    """A table of texts. best: whether a cell is printed in bold; None: none is. across: of a pivot, what its last columns
    are values of, and how many they are. below: lines that belong to the numbers, such as the baseline's."""

    texts: pd.DataFrame
    best: pd.DataFrame | None = None
    across: tuple[str, int] | None = None
    below: tuple[str, ...] = ()

    @property
    def rows(self) -> list[list[tuple[str, bool]]]:
        """(text, whether it is bold) of each cell."""
        values = self.texts.to_numpy().tolist()
        bold = self.best.to_numpy().tolist() if self.best is not None else [[False] * self.texts.shape[1]] * len(values)
        return [[(str(v), bool(b)) for v, b in zip(*both, strict=True)] for both in zip(values, bold, strict=True)]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column has numbers alone, which stand to the right."""
        return [_numeric(self.texts.iloc[:, i]) for i in range(self.texts.shape[1])]


def _numeric(column: Iterable[str]) -> bool:
    told = [v for v in map(str, column) if v not in ("", NONE)]
    return bool(told) and all(map(is_number, told))


# ---- for programs


def csv_text(table: pd.DataFrame, digits: int | None = None) -> str:
    """CSV that no spreadsheet computes: texts are defused, numbers stand to their last digit, or to `digits`.

    `import csv` takes it back.
    """
    numbers = with_whole(table if digits is None else table.round(digits))
    cells = {
        defused(str(c)): values
        if _is_plain(values)
        else pd.Series([_csv_cell(v) for v in values], values.index, object)
        for c, values in numbers.items()
    }
    return pd.DataFrame(cells, index=table.index).to_csv(index=False)


def with_whole(table: pd.DataFrame) -> pd.DataFrame:
    """The table with integers in columns of counts and widths, where all that is known is whole."""
    names = [c for c in map(str, table) if c == "bits" or _counts(c) or width_columns([c])]
    whole = [c for c in names if pd.api.types.is_float_dtype(table[c]) and _all_whole(table[c].dropna())]
    return table.astype(dict.fromkeys(whole, "Int64"))


def _counts(name: str) -> bool:
    found = column_of(name)
    return found is not None and found.dtype in (INTEGER, INTEGER_OR_MIXED)


def _all_whole(values: pd.Series) -> bool:
    return bool(np.isfinite(values).all() and (values % 1 == 0).all())


def _is_plain(values: pd.Series) -> bool:
    """Whether a column has nothing but numbers, truths or times."""
    types = pd.api.types
    return types.is_numeric_dtype(values) or types.is_bool_dtype(values) or types.is_datetime64_any_dtype(values)


def _csv_cell(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | np.generic | pd.Timestamp) or value is pd.NaT:
        return value
    return defused(", ".join(map(str, value)) if isinstance(value, list | tuple | np.ndarray) else str(value))


def json_text(table: pd.DataFrame, digits: int | None = None) -> str:
    """A list of objects, one a row. What is unknown is null; counts are whole numbers."""
    import orjson

    table, names = with_whole(table), list(map(str, table))
    columns = [_json_column(values, name, digits) for name, (_, values) in zip(names, table.items(), strict=True)]
    records = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return orjson.dumps(records, option=orjson.OPT_INDENT_2).decode() + "\n"  # which writes NaN as null


def _json_column(values: pd.Series, name: str, digits: int | None) -> list[object]:
    if pd.api.types.is_float_dtype(values):
        known = column_of(name)
        if known is not None and known.dtype == INTEGER:
            return [int(v) if math.isfinite(v) else None for v in values]
        return list((values if digits is None else values.round(digits)).tolist())
    return [_json_value(v, digits) for v in values.tolist()]


def _json_value(value: object, digits: int | None) -> object:
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, list | tuple | np.ndarray):
        return [_json_value(v, digits) for v in value]
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    plain = value.item() if isinstance(value, np.generic) else value
    return round(plain, digits) if isinstance(plain, float) and digits is not None else plain


# ---- for people


def markdown(shown: Shown) -> str:
    head = [_md(str(c)) for c in shown.texts.columns]
    rule = ["---:" if numeric else "---" for numeric in shown.numeric]
    body = [[f"**{_md(text)}**" if bold and text else _md(text) for text, bold in row] for row in shown.rows]
    lines = ["| " + " | ".join(row) + " |" for row in [head, rule, *body]]
    return "\n".join([*lines, *(f"\n{_md(line)}" for line in shown.below)]) + "\n"


def _md(text: str) -> str:
    """A text without the bars that would end the cell, also those behind a backslash of the text."""
    return re.sub(r"(\\*)\|", lambda bar: "&#92;" * len(bar[1]) + "\\|", one_line(text))


def latex(shown: Shown, caption: str | None = None, label: str | None = None) -> str:
    """A booktabs table; in a float where it has a caption or a label. caption: plain text, not LaTeX."""
    spec = "".join("r" if numeric else "l" for numeric in shown.numeric)
    body = [" & ".join(_tex_cell(text, bold) for text, bold in row) + r" \\" for row in shown.rows]
    head = [*_spanning(shown), " & ".join(map(_heading, shown.texts.columns)) + r" \\"]
    lines = [r"\begin{tabular}{" + spec + "}", r"\toprule", *head, r"\midrule", *body, *_below(shown)]
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines if caption is None and label is None else _in_float(lines, caption, label)) + "\n"


def _in_float(lines: Sequence[str], caption: str | None, label: str | None) -> list[str]:
    named = [*([rf"\caption{{{tex(caption)}}}"] if caption else []), *([rf"\label{{{label}}}"] if label else [])]
    return [r"\begin{table}[t]", r"\centering", *named, *lines, r"\end{table}"]


def _spanning(shown: Shown) -> list[str]:
    """The line above the values of a pivot that says what they are values of."""
    if shown.across is None:
        return []
    name, count = shown.across
    first, last = shown.texts.shape[1] - count + 1, shown.texts.shape[1]
    empty = "& " * (first - 1)
    return [rf"{empty}\multicolumn{{{count}}}{{c}}{{{_heading(name)}}} \\", rf"\cmidrule(lr){{{first}-{last}}}"]


def _below(shown: Shown) -> list[str]:
    width = shown.texts.shape[1]
    told = [rf"\multicolumn{{{width}}}{{c}}{{{tex(line)}}} \\" for line in shown.below]
    return [r"\midrule", *told] if told else []


def _heading(name: object) -> str:
    """A column's name as a paper has it: CIDEr, not cider; of `bits=4` the value, since a line above says the rest."""
    text = str(name)
    return tex(METRICS[text].label if text in METRICS else text)


def _tex_cell(text: str, bold: bool) -> str:
    if is_number(text):
        negative = text.startswith((MINUS, "-"))
        number = text.replace(MINUS, "-")
        if negative:
            return rf"$\mathbf{{{number}}}$" if bold else f"${number}$"
        return rf"\textbf{{{number}}}" if bold else number
    if (ends := ENDS.fullmatch(text)) and all(map(is_number, ends.groups())):
        return "--".join(_tex_cell(end, bold) for end in ends.groups())
    return rf"\textbf{{{tex(text)}}}" if bold else tex(text)


def tex(text: str) -> str:
    """A text as LaTeX prints it, whatever characters it has."""
    return "".join(TEX.get(c, c) for c in one_line(text))
