"""What is wrong with conditions on rows, each in one line: what, and what would be right."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from shlex import quote

import pandas as pd

from blip2sweep.reporting.table_where import (
    COMPARED,
    NULL,
    ORDERED,
    QUOTES,
    Condition,
    column_kind,
    condition,
    fulfilling,
    read,
    text_of,
    unknown,
    unquoted,
    values_of,
)

SIGNS = {
    "=<": "<=",
    "=>": ">=",
    "<>": "!=",
    "><": "!=",
    "===": "=",
    "=!": "!=",
    "!": "!=",
    "~": "=",
    "=~": "=",
    "!~": "!=",
}
MISSPELT = re.compile(r"\s*([^<>=!~]*[^<>=!~\s])\s*([<>=!~]+)\s*(.*)", re.DOTALL)
NEXT = re.compile(r"\s*(?:,|;|&+|\s(?:and|AND)\s|\s)\s*(?=[\w /%]*\w\s*[<>=!])")
TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}
UNKNOWN = ("none", "nan", "na", "n/a", "inf", "-inf", "nil", "empty")  # what people write for `null`
EXAMPLES = {"number": "4", "time": "2026-11-29", "boolean": "true"}
SHOWN = 6  # values of a column that a message names


def no_condition(text: str) -> str:
    """Why a text is no condition."""
    told, found = f"--where {text}", MISSPELT.fullmatch(text)
    if not text.strip():
        return "--where '': empty; right: COLUMN=VALUE, such as bits=4"
    if found and found[2] in SIGNS and found[3]:
        return f"{told}: no comparison; right: {quote(found[1] + SIGNS[found[2]] + found[3])}"
    if found and not found[3].strip():
        return f"{told}: the value is missing; right: {quote(found[1] + found[2] + 'VALUE')}, or {quote(found[1])}={NULL} for unknown ones"
    if text.lstrip()[0] in "<>=!":
        return f"{told}: the column is missing; right: {quote('COLUMN' + text.strip())}"
    return f"{told}: no condition; right: COLUMN=VALUE, or in quotes, because of the shell, with !=, <, <=, >, >=, such as 'bits<=4'"


def wrong_condition(asked: Condition, table: pd.DataFrame, known: Collection[str]) -> str | None:
    """Why a condition says nothing about its column; None for one that does. known: the names of all columns."""
    if asked.column not in known:
        return _unknown(asked, known)
    if (several := _several(asked, table, known)) is not None:
        return several
    kind, values = column_kind(table, asked.column), values_of(asked, table)
    compared, is_null = asked.sign in COMPARED, values == [NULL]
    wrong = [v for v in values if v != NULL and not _readable(v, kind)]
    faults = [
        *([f"which has no {asked.sign}"] if compared and (kind not in ORDERED or is_null) else []),
        *([f"{asked.sign} takes one value"] if compared and len(values) > 1 else []),
        *([_of_values(wrong, kind)] if wrong else []),
    ]
    if not faults:
        return None
    right = (
        f"{asked.column}={NULL} or {quote(f'{asked.column}!={NULL}')}"
        if is_null
        else _right(asked, table, kind, values, wrong)
    )
    return f"--where {asked.text}: {NULL if is_null else asked.column} is {_a(kind, is_null)}, {', and '.join(faults)}; right: {right}"


def _unknown(asked: Condition, known: Collection[str]) -> str:
    inner = condition(asked.value)
    if re.fullmatch(r"[\d.]+", asked.column) and (asked.value in known or (inner and inner.column in known)):
        column = inner.column if inner else asked.value
        right = [f"{column}{TURNED[asked.sign]}{asked.column}", *([inner.text] if inner else [])]
        return f"--where {asked.text}: the column comes first; right: {_options(right)}"
    return f"--where {asked.column}: no such column; {nearest_column(asked.column, known)}"


def nearest_column(name: str, known: Collection[str]) -> str:
    """The tail of a message on an unknown column."""
    plain = re.sub(r"\W+", "_", name.lower())
    close = get_close_matches(plain, sorted(known), n=1, cutoff=0.6)
    return f"right: {f'{close[0]}, or another' if close else 'one'} of docs/columns.md or of --format csv"


def _several(asked: Condition, table: pd.DataFrame, known: Collection[str]) -> str | None:
    """That several conditions stand in one option. A text that some row has is one value."""
    first, *others = NEXT.split(asked.value)
    found = [condition(o) for o in others]
    if not others or not all(c and c.column in known for c in found) or fulfils_as_text(asked, table):
        return None
    right = _options([f"{asked.column}{asked.sign}{first}", *others])
    return f"--where {asked.text}: {len(others) + 1} conditions; right: {right}"


def _options(conditions: Sequence[str]) -> str:
    return " ".join(f"--where {quote(c)}" for c in conditions)


def fulfils_as_text(asked: Condition, table: pd.DataFrame) -> bool:
    """Whether some row has the whole value as a text."""
    return asked.column in table and bool((table[asked.column].map(str) == unquoted(asked.value)).any())


def _readable(text: str, kind: str) -> bool:
    try:
        read(text, kind)
    except ValueError:
        return False
    return bool(text) and (text[0] in QUOTES) == (text[-1] in QUOTES)


def _of_values(wrong: Sequence[str], kind: str) -> str:
    if kind in ("text", "list"):
        return "of which a value is empty or has one quote"
    listed = " and ".join(f"'{v}'" for v in wrong)
    return f"which {listed} {'are' if len(wrong) > 1 else 'is'} not"


def _a(kind: str, is_null: bool) -> str:
    return "unknown" if is_null else "text" if kind == "text" else f"a {kind}"


def _right(asked: Condition, table: pd.DataFrame, kind: str, values: Sequence[str], wrong: Sequence[str]) -> str:
    """A condition on the column that says something: with what was typed, as far as that can be read."""
    sign = asked.sign if kind in ORDERED or asked.sign not in COMPARED else "="
    good = [v for v in values if v not in wrong]
    if kind in ("text", "list"):
        return quote(f"{asked.column}{sign}{','.join(v.strip(''.join(QUOTES)) for v in values)}")
    if any(v.lower() in UNKNOWN for v in wrong):
        return f"{asked.column}={NULL}, or such as {quote(asked.column + sign + _example(table, asked.column, kind))}"
    text = good[0] if good and asked.sign in COMPARED else ",".join(good) or _example(table, asked.column, kind)
    return f"{'' if good else 'such as '}{quote(asked.column + sign + text)}"


def _example(table: pd.DataFrame, column: str, kind: str) -> str:
    there = table[column].dropna() if column in table else pd.Series(dtype=object)
    return short(there.iloc[0]) if len(there) else EXAMPLES[kind]


def short(value: object) -> str:
    """A value with four digits, where exactly this one is not meant."""
    return f"{value:.4g}" if isinstance(value, float) else text_of(value)


def nothing_fits(asked: list[Condition], table: pd.DataFrame) -> str:
    """The message where no row fulfils all conditions: the first that no row fulfils, with values that there are."""
    for one in asked:
        if not fulfilling(table, one).any():
            return f"--where {one.text}: no row has it; {_there(one, table)}"
    return f"--where {' '.join(c.text for c in asked)}: no row fulfils all of it; right: fewer conditions"


def _there(asked: Condition, table: pd.DataFrame) -> str:
    """What values there are in place of those of a condition."""
    known = table.loc[~unknown(table, asked.column), asked.column] if asked.column in table else pd.Series(dtype=object)
    there = list(dict.fromkeys(map(text_of, sorted(known.explode(), key=_order))))
    if not there:
        return f"{asked.column} is {NULL} in every row"
    if asked.value == NULL:
        return f"{asked.column} is {NULL} in none"
    if len(there) == 1:
        return f"{asked.column} is {there[0]} wherever it is known"
    if len(there) <= SHOWN and asked.sign not in COMPARED:
        return f"right: one of {', '.join(there)}"
    if column_kind(table, asked.column) in ORDERED:
        return f"right: from {short(known.min())} to {short(known.max())}"
    close = [t for t in there if t.startswith(asked.value)] or get_close_matches(asked.value, there, n=1, cutoff=0.5)
    return f"right: {f'{close[0]}, or another of' if close else 'one of'} {', '.join(there[:SHOWN])}, …"


def _order(value: object) -> tuple[bool, object]:
    return (False, value) if not isinstance(value, str) else (True, value)
