"""Conditions on rows of a table: `bits<=4`, `method=rtn,gptq`, `sweeps=night`, `failure!=null`. Nothing is evaluated."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from blip2sweep.reporting.part_roles import roles_of
from blip2sweep.reporting.table_times import fulfils, period
from blip2sweep.results.columns import (
    BOOLEAN,
    BOOLEAN_OR_MIXED,
    INTEGER,
    INTEGER_OR_MIXED,
    INTEGERS,
    NUMBER,
    TEXT,
    TEXTS,
    TIME,
)
from blip2sweep.results.schema import column_of

CONDITION = re.compile(r"\s*([^<>=!]*[^<>=!\s])\s*(<=|>=|!=|==|=|<|>)(?![<>=!~])(.*)", re.DOTALL)
NULL = "null"
QUOTES = ("'", '"')
COMPARED: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
ORDERED = ("number", "time")  # kinds that have these signs
TRUTH = {"true": True, "false": False}
KINDS = {
    TEXT: "text", INTEGER: "number", NUMBER: "number", BOOLEAN: "boolean", TIME: "time", TEXTS: "list", INTEGERS: "list",
    INTEGER_OR_MIXED: "number", BOOLEAN_OR_MIXED: "boolean",
}  # fmt: skip


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
    if pd.api.types.is_bool(first):
        return "boolean"
    return "list" if hasattr(first, "__len__") and not isinstance(first, str) else "text"


def column_kind(table: pd.DataFrame, column: str) -> str:
    """The same of a column of a table. One without a value is what the dictionary of columns says."""
    if column in table and table[column].notna().any():
        return kind_of(table[column])
    found = column_of(column)
    return KINDS[found.dtype] if found else "text"


def values_of(asked: Condition, table: pd.DataFrame) -> list[str]:
    """The values of a condition, without quotes. A text with a comma that some row has is one value."""
    whole, kind = unquoted(asked.value), column_kind(table, asked.column)
    if whole != asked.value or (kind == "text" and asked.column in table and (table[asked.column] == whole).any()):
        return [whole]
    return [unquoted(v.strip()) for v in asked.value.split(",")]


def unquoted(text: str) -> str:
    """A text without the quotes around all of it."""
    inside = text[1:-1]
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in QUOTES and text[0] not in inside
    return inside if quoted else text


def read(text: str, kind: str) -> object:
    """A value as the column has it. Raises ValueError for one that is not of its kind."""
    if kind == "number":
        if not (number := float(text)) - number == 0:  # inf and nan
            raise ValueError(text)
        return number
    if kind == "boolean":
        if text.lower() not in TRUTH:
            raise ValueError(text)
        return TRUTH[text.lower()]
    return period(text) if kind == "time" else text


def fulfilling(table: pd.DataFrame, asked: Condition) -> pd.Series:
    """Whether each row fulfils a condition that `table_mistakes` has no word against. A null fulfils `=null` and
    `!=VALUE` alone."""
    values = table[asked.column] if asked.column in table else pd.Series(None, index=table.index, dtype=object)
    kind, wanted = column_kind(table, asked.column), values_of(asked, table)
    null = unknown(table, asked.column)
    if asked.sign in COMPARED:
        return ~null & _compared(values.where(~null), asked.sign, read(wanted[0], kind), kind)
    among = _among(table, asked.column, values[~null], kind, [w for w in wanted if w != NULL])
    among = among.reindex(table.index, fill_value=False) | (null & (NULL in wanted))
    return among if asked.sign == "=" else ~among


def unknown(table: pd.DataFrame, column: str) -> pd.Series:
    """Which rows have no value: a null, an empty text or an empty list."""
    if column not in table:
        return pd.Series(True, index=table.index)
    values = table[column]
    empty = values.map(len, na_action="ignore") == 0 if column_kind(table, column) in ("text", "list") else False
    return values.isna() | empty


def _compared(values: pd.Series, sign: str, wanted: Any, kind: str) -> pd.Series:
    if values.isna().all():
        return pd.Series(False, index=values.index)
    return fulfils(values, sign, wanted) if kind == "time" else COMPARED[sign](values, wanted)


def _among(table: pd.DataFrame, column: str, values: pd.Series, kind: str, wanted: Sequence[str]) -> pd.Series:
    """Whether each known value is one of those. values: of the rows that have one."""
    if kind == "list":
        return pd.Series([not {text_of(x) for x in v}.isdisjoint(wanted) for v in values], values.index, dtype=bool)
    if kind == "time":
        periods = [period(w) for w in wanted]
        return pd.Series([any(p.start <= v < p.end for p in periods) for v in values], values.index, dtype=bool)
    among = values.map(text_of).isin(wanted) if kind == "text" else values.isin([read(w, kind) for w in wanted])
    return among | roles_of(table.loc[values.index]).isin(wanted) if column == "part" else among


def text_of(value: object) -> str:
    """A value as people type it."""
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}"
    if pd.api.types.is_bool(value):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)
