"""A table as CSV, Markdown or LaTeX."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from blip2sweep.console.printing import defused, one_line

TEX = {**{c: "\\" + c for c in "%_&#${}"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
       "−": "$-$", "…": r"\ldots{}", "–": "--"}  # fmt: skip


def csv_text(table: pd.DataFrame) -> str:
    """CSV that no spreadsheet computes: texts are defused, numbers stand to their last digit.

    `import csv` takes it back.
    """
    return table.rename(columns=lambda c: defused(str(c))).map(_csv_cell).to_csv(index=False)


def _csv_cell(value: object) -> object:
    plain = value is None or isinstance(value, bool | int | float | np.generic | pd.Timestamp) or value is pd.NaT
    return value if plain else defused(str(value))


def markdown(short: pd.DataFrame) -> str:
    rows = [list(short.columns), ["---"] * len(short.columns), *short.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(_md(str(v)) for v in row) + " |" for row in rows) + "\n"


def _md(text: str) -> str:
    """A text without the bars that would end the cell, also those behind a backslash of the text."""
    return re.sub(r"(\\*)\|", lambda bar: "&#92;" * len(bar[1]) + "\\|", one_line(text))


def latex(short: pd.DataFrame) -> str:
    """A booktabs table."""
    body = [" & ".join(_tex(str(v)) for v in row) + r" \\" for row in short.to_numpy().tolist()]
    head = " & ".join(_tex(str(c)) for c in short.columns) + r" \\"
    lines = [r"\begin{tabular}{" + "l" * len(short.columns) + "}", r"\toprule", head, r"\midrule", *body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _tex(text: str) -> str:
    return "".join(TEX.get(c, c) for c in one_line(text))
