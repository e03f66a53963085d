"""Rows of a table, collected by column. A row is made of pieces, each a place in a table of columns, so no row of 80 values
is ever made."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from math import nan
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blip2sweep.results.packed import INT64, Column, Holes, Same
from blip2sweep.results.record import Record, Table

Row = list[Record]
Values = list[Any] | NDArray[Any]


class Share(NamedTuple):
    """The rows that have a piece of one table. rows, places: (k,) int64."""

    table: Table
    rows: NDArray[np.int64]
    places: NDArray[np.int64]


def by_column(rows: Sequence[Row], order: Sequence[int] | None = None) -> dict[str, Values]:
    """{column: its values}, in the order in which columns first stand in some row; NaN where a row lacks the column. Of
    several pieces of a row with one column the last counts, as of a dict that is updated. order: which of the rows is the
    first, the second and so on; by default they are in order.

    Numbers are float64 or int64 arrays, as pandas makes them of the list; all others are lists.
    """
    places = np.arange(len(rows)) if order is None else np.array(order, np.int64)
    ranks = np.empty(len(rows), np.int64)
    ranks[places] = np.arange(len(rows))
    names = dict.fromkeys(name for row in _kinds(rows, ranks.tolist()) for piece in row for name in piece.table.columns)
    shares: dict[str, list[Share]] = {name: [] for name in names}
    for share in _shares(rows):
        for name in share.table.columns:
            shares[name].append(share)
    taken = ((name, shares.pop(name)) for name in names)
    return {name: _values([share.table.columns[name] for share in own], own, places) for name, own in taken}


def _kinds(rows: Iterable[Row], ranks: Sequence[int]) -> Iterable[Row]:
    """The first row of each combination of tables, in their order. ranks: of the rows."""
    seen: dict[tuple[int, ...], tuple[int, Row]] = {}
    for row, rank in zip(rows, ranks, strict=True):
        kind = tuple([id(piece.table) for piece in row])
        if kind not in seen or rank < seen[kind][0]:
            seen[kind] = rank, row
    return [row for _, row in sorted(seen.values(), key=itemgetter(0))]


def _shares(rows: Sequence[Row]) -> Iterable[Share]:
    """Every table with its rows: those that have it as first piece first, so that later pieces come later."""
    for pieces in zip_longest(*rows):
        found: dict[int, tuple[Table, list[int], list[int]]] = {}
        for i, piece in enumerate(pieces):
            if piece is not None:
                share = found.get(id(piece.table))
                if share is None:
                    share = found[id(piece.table)] = (piece.table, [], [])
                share[1].append(i)
                share[2].append(piece.place)
        yield from (Share(t, np.array(r, np.int64), np.array(p, np.int64)) for t, r, p in found.values())


def _values(columns: Sequence[Column], shares: Sequence[Share], places: NDArray[np.int64]) -> Values:
    """columns: those of one name in the shares. What later shares replace everywhere does not count. places: of the rows
    in their order."""
    n = len(places)
    last = np.full(n, -1)  # of each row the share that counts
    for i, share in enumerate(shares):
        last[share.rows] = i
    used = [i for i, share in enumerate(shares) if last[share.rows[0]] == i or (last[share.rows] == i).any()]
    columns, shares = [columns[i] for i in used], [shares[i] for i in used]
    numbers = [own for column in columns if (own := _numbers(column)) is not None]
    if len(numbers) == len(columns) and not all(map(_is_none, columns)):
        whole = bool((last >= 0).all()) and all(own.dtype == np.int64 for own in numbers)
        return _joined(numbers, shares, np.empty(n, np.int64) if whole else np.full(n, nan))[places]
    found = np.full(n, nan, object)
    for column, share in zip(columns, shares, strict=True):
        found[share.rows] = column.value if isinstance(column, Same) else _objects(column)[share.places]
    return found[places].tolist()


def _joined(numbers: Sequence[NDArray[Any]], shares: Sequence[Share], found: NDArray[Any]) -> NDArray[Any]:
    """A column of numbers. found: filled with them; of integers where all are and no row lacks one."""
    for own, share in zip(numbers, shares, strict=True):
        found[share.rows] = own[share.places] if own.size > 1 else own
    return found


def _numbers(column: Column) -> NDArray[Any] | None:
    """A column of numbers and None as an array, of one element where all are the same; None for other columns."""
    if isinstance(column, Holes | array):
        return np.asarray(column.numbers if isinstance(column, Holes) else column)
    if not isinstance(column, Same):
        return None
    if _is_none(column) or type(column.value) is float:
        return np.array([nan if column.value is None else column.value], np.float64)
    return np.array([column.value], np.int64) if type(column.value) is int and column.value in INT64 else None


def _is_none(column: Column) -> bool:
    return isinstance(column, Same) and column.value is None


def _objects(column: Column) -> NDArray[Any]:
    """The values as they are; records as the mappings that they stand for."""
    values = column if isinstance(column, list) else map(column.__getitem__, range(len(column)))
    return np.fromiter(map(dict, values) if isinstance(column, Table) else values, object, len(column))
