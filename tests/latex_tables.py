"""A strict reader of the LaTeX that tables are made of: whatever it takes, LaTeX with booktabs compiles.

Debian's smallest LaTeX has 118 MB (texlive-latex-base, its fonts and programs) and no booktabs, so CI does not compile.
"""

from __future__ import annotations

import re
from typing import NamedTuple

TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|[{}$&#%_^~]|[^\\{}$&#%_^~]")
KNOWN = {r"\centering", r"\caption", r"\label", r"\toprule", r"\midrule", r"\bottomrule", r"\cmidrule", r"\multicolumn", r"\textbf",
         r"\textbackslash", r"\textasciitilde", r"\textasciicircum", r"\ldots", *(f"\\{c}" for c in "%_&#${}")}  # fmt: skip
IN_MATH = {r"\mathbf", r"\times", r"\cdot", r"\pm", r"\leq", r"\geq", r"\rightarrow", r"\uparrow", r"\downarrow"}
OPENS, CLOSES = re.compile(r"\\begin\{(\w+)\}"), re.compile(r"\\end\{(\w+)\}")
TABULAR = re.compile(r"\\begin\{tabular\}\{([lrc]+)\}\n\\toprule\n(.*)\n\\bottomrule\n\\end\{tabular\}\n", re.DOTALL)


class Tabular(NamedTuple):
    """spec: one letter a column. rows: the cells of each line, as LaTeX; a rule is no line."""

    spec: str
    rows: list[list[str]]


def read(text: str) -> Tabular:
    """The table in a text. Raises AssertionError for what LaTeX would refuse, or print otherwise than it is meant."""
    assert "\n\n" not in text  # would end a paragraph inside the table
    inside, rest = _environments(text)
    found = TABULAR.fullmatch(inside[-1])
    assert found, inside[-1]
    for line in rest:
        _check(line)
    rows = [_cells(line, len(found[1])) for line in found[2].split("\n") if not _is_rule(line, len(found[1]))]
    return Tabular(found[1], rows)


def _environments(text: str) -> tuple[list[str], list[str]]:
    """(the tabular as text, the lines around it). What is opened is closed, in order."""
    open_: list[str] = []
    for line in text.splitlines():
        for name in OPENS.findall(line):
            open_.append(name)
        for name in CLOSES.findall(line):
            assert open_.pop() == name
    assert not open_
    if text.startswith(r"\begin{table}[t]"):
        start, end = text.index(r"\begin{tabular}"), text.index(r"\end{table}")
        return [text[start:end]], text[len(r"\begin{table}[t]") : start].strip().splitlines()
    return [text], []


def _is_rule(line: str, columns: int) -> bool:
    if found := re.fullmatch(r"\\cmidrule\(lr\)\{(\d+)-(\d+)\}", line):
        assert 1 <= int(found[1]) <= int(found[2]) <= columns
        return True
    return line == r"\midrule"


def _cells(line: str, columns: int) -> list[str]:
    assert line.endswith(r" \\"), line
    cells = re.split(r"(?<!\\)&", line.removesuffix(r" \\"))
    spans = [int(m[1]) if (m := re.match(r"\s*\\multicolumn\{(\d+)\}\{c\}\{", c)) else 1 for c in cells]
    assert sum(spans) == columns, line
    for cell in cells:
        _check(cell)
    return [c.strip() for c in cells]


def _check(text: str) -> None:
    """That a cell has known commands alone, closed groups, and no character that means something else to LaTeX."""
    depth, math = 0, False
    for token in TOKEN.findall(text):
        if token == "$":
            math = not math
        elif token in "{}":
            depth += 1 if token == "{" else -1
            assert depth >= 0, text
        elif token.startswith("\\"):
            assert token in (IN_MATH if math else KNOWN), f"{token} in {text}"
        elif math:
            assert token in "0123456789.-<>|", f"{token} in {text}"
        else:
            assert token not in '&#%_^<>|"−–…×', f"{token} in {text}"
    assert (depth, math) == (0, False), text
