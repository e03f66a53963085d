"""Columns of many lines in little memory: numbers packed, equal values and equal texts once.

A column is anything with `column[place]`, which gives the value as it was, of the same type.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any, Protocol

INT64 = range(-(2**63), 2**63)


class Column(Protocol):
    """The values of one name in many lines."""

    def __getitem__(self, place: int, /) -> object: ...

    def __len__(self) -> int: ...


class Same:
    """One value in all places, which no caller may change."""

    __slots__ = ("_len", "value")

    def __init__(self, value: object, length: int) -> None:
        self.value, self._len = value, length

    def __getitem__(self, place: int, /) -> object:
        return self.value

    def __len__(self) -> int:
        return self._len


class Holes:
    """Floats and None. numbers: has NaN in the places of None, which `holes` marks."""

    __slots__ = ("holes", "numbers")

    def __init__(self, values: Sequence[float | None]) -> None:
        self.numbers = array("d", [math.nan if v is None else v for v in values])
        self.holes = bytes([v is None for v in values])

    def __getitem__(self, place: int, /) -> float | None:
        return None if self.holes[place] else self.numbers[place]

    def __len__(self) -> int:
        return len(self.holes)


class Lists:
    """Lists of one length. columns: of their first values, their second ones, and so on."""

    __slots__ = ("_len", "columns")

    def __init__(self, columns: Sequence[Column], length: int) -> None:
        self.columns, self._len = columns, length

    def __getitem__(self, place: int, /) -> list[object]:
        return [column[place] for column in self.columns]

    def __len__(self) -> int:
        return self._len


def packed(values: Sequence[Any]) -> Column:
    """A column of these values, at least one. Objects stay as they are."""
    if _are_same(values):
        return Same(values[0], len(values))
    kinds = set(map(type, values))
    if kinds == {str}:
        return list(map(dict[object, object]().setdefault, values, values))  # equal texts are one object
    if kinds == {float}:
        return array("d", values)
    if kinds == {float, type(None)}:
        return Holes(values)
    if kinds == {int} and min(values) in INT64 and max(values) in INT64:
        return array("q", values)
    if kinds == {list} and len(set(map(len, values))) == 1:
        return Lists([packed(own) for own in zip(*values, strict=True)], len(values))
    return list(values)


def unpacked(column: Column) -> list[Any]:
    """The values of a column."""
    if isinstance(column, Same):
        return [column.value] * len(column)
    if isinstance(column, Lists) and column.columns:
        return [[*values] for values in zip(*map(unpacked, column.columns), strict=True)]
    return [*column] if isinstance(column, list | array) else [column[i] for i in range(len(column))]


def _are_same(values: Sequence[object]) -> bool:
    """Whether all are one text, one number of one type, or None."""
    first = values[0]
    if values[-1] != first or values[len(values) // 2] != first or values.count(first) < len(values):
        return False
    if first is None or isinstance(first, str):
        return True
    # 0.0 equals -0.0, and 1 equals True.
    return first.__class__ in (int, float, bool) and first != 0 and len(set(map(type, values))) == 1
