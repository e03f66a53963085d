"""Conditions on rows of a table: `bits<=4`, `method=rtn,gptq`, `sweeps=night`, `failure!=null`. Nothing is evaluated."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pandas as pd

from blip2sweep.errors import nearest
from blip2sweep.reporting.part_roles import roles_of

CONDITION = re.compile(r"\s*(\w+(?:/\w+)?)\s*(<=|>=|!=|==|=|<|>)(.*)", re.DOTALL)
NULL = "null"
COMPARED: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
TRUTH = {"true": True, "false": False}
SHOWN = 6  # values of a column that a message names


class Condition(NamedTuple):
    """`column sign value`; `=` and `!=` may have several values with commas."""

    column: str
    sign: str
    value: str

    @property
    def text(self) -> str:
        return f"{self.column}{self.sign}{self.value}"


def condition(text: str) -> Condition | None:
    """A condition from the command line; None for what is none."""
    found = CONDITION.fullmatch(text)
    if found is None or not found[3].strip():
        return None
    return Condition(found[1], found[2].replace("==", "="), found[3].strip())


def kind_of(values: pd.Series) -> str:
    """`number`, `boolean`, `time`, `list` or `text`: how values of a column are compared."""
    if pd.api.types.is_bool_dtype(values):
        return "boolean"
    if pd.api.types.is_numeric_dtype(values):
        return "number"
    if pd.api.types.is_datetime64_any_dtype(values):
        return "time"
    first = next((v for v in values if not isinstance(v, float) and v is not None), None)
    if isinstance(first, bool):
        return "boolean"
    return "list" if hasattr(first, "__len__") and not isinstance(first, str) else "text"


def wrong_value(asked: Condition, table: pd.DataFrame) -> str | None:
    """Why a condition says nothing about its column; None for one that does."""
    values = table[asked.column] if asked.column in table else pd.Series([None] * len(table), dtype=object)
    kind = kind_of(values)
    if asked.value == NULL or values.isna().all():
        return None if asked.sign in ("=", "!=") else f"--where {asked.text}: right: {asked.column}{'='}{NULL}, or !="
    if asked.sign in COMPARED and kind not in ("number", "time"):
        return f"--where {asked.text}: {asked.column} is {_a(kind)}; right: = or !="
    try:
        _ = [_read(v, kind) for v in _values(asked, values, kind)]
    except ValueError:
        return f"--where {asked.text}: {asked.column} is {_a(kind)}; right: such as {asked.column}={_example(values, kind)}"
    return None


def _a(kind: str) -> str:
    return "text" if kind == "text" else f"a {kind}"


def _example(values: pd.Series, kind: str) -> str:
    first = values.dropna().iloc[0]
    return str(first).lower() if kind == "boolean" else f"{first:%Y-%m-%d}" if kind == "time" else f"{first:g}"


def fulfilling(table: pd.DataFrame, asked: Condition) -> pd.Series:
    """Whether each row fulfils a condition that `wrong_value` has no word against. A null fulfils `=null` and `!=VALUE`
    alone."""
    if asked.column not in table:
        return pd.Series((asked.sign, asked.value == NULL) in (("=", True), ("!=", False)), index=table.index)
    values = table[asked.column]
    if asked.value == NULL:
        return values.isna() if asked.sign == "=" else values.notna()
    kind = kind_of(values)
    wanted = [_read(v, kind) for v in _values(asked, values, kind)]
    if asked.sign in COMPARED:
        return pd.Series(COMPARED[asked.sign](values, wanted[0]), index=table.index)
    if asked.column == "part":
        among = values.isin(wanted) | roles_of(table).isin(wanted)
    elif kind == "list":
        among = pd.Series([any(w in v for w in wanted) for v in values], index=table.index, dtype=bool)
    else:
        among = values.isin(wanted)
    return among if asked.sign == "=" else ~among


def _values(asked: Condition, values: pd.Series, kind: str) -> list[str]:
    """The values of a condition. A text with a comma that some row has is one value."""
    if asked.sign in COMPARED or (kind == "text" and (values == asked.value).any()):
        return [asked.value]
    return [v.strip() for v in asked.value.split(",")]


def _read(text: str, kind: str) -> object:
    """A value as the column has it. Raises ValueError for one that is not of its kind."""
    if kind == "number":
        return float(text)
    if kind == "boolean":
        if text.lower() not in TRUTH:
            raise ValueError(text)
        return TRUTH[text.lower()]
    if kind == "time":
        found = pd.Timestamp(text)
        return found.tz_localize("UTC") if found.tzinfo is None else found
    return text


def nothing_fits(asked: list[Condition], table: pd.DataFrame) -> str:
    """The message where no row fulfils all conditions: the first that no row fulfils, with values that there are."""
    for one in asked:
        if not fulfilling(table, one).any() and one.column in table and one.sign == "=":
            there = sorted({_text(v) for v in table[one.column].dropna().explode()})
            told = f"right: one of {', '.join(there[:SHOWN])}{', …' if len(there) > SHOWN else ''}"
            return f"--where {one.text}: no row has it; {told if len(there) <= SHOWN else nearest(one.value, there)}"
    return f"--where {' '.join(c.text for c in asked)}: no row fulfils all of it; right: fewer conditions"


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
