"""Lines of a large ledger, kept column by column: a line is a place in the table of all lines that have its names."""

from __future__ import annotations

from collections.abc import Iterator, KeysView, Mapping
from typing import cast

from blip2sweep.results.packed import Column, Texts, packed

MOST = 4096  # lines of a table; it is packed when it has so many


class Table:
    """Lines of one shape. A column is a list until the table is packed."""

    __slots__ = ("columns", "length")

    def __init__(self, columns: dict[str, Column], length: int = 0) -> None:
        self.columns, self.length = columns, length

    def __getitem__(self, place: int, /) -> Record:
        return Record(self, place)

    def __len__(self) -> int:
        return self.length

    def add(self, line: Mapping[str, object]) -> Record:
        """Add a line, which has the names of the columns in their order."""
        for column, value in zip(self.columns.values(), line.values(), strict=True):
            cast("list[object]", column).append(value)
        self.length += 1
        return Record(self, self.length - 1)

    def pack(self, texts: Texts) -> None:
        """Pack the columns, objects in them as tables of their own."""
        for name, column in self.columns.items():
            self.columns[name] = _nested(cast("list[object]", column), texts)


def _nested(values: list[object], texts: Texts) -> Column:
    """A packed column. Its objects have the same names, as those of one shape have."""
    if not values or not all(v.__class__ is dict for v in values):
        return packed(values, texts)
    objects = cast("list[dict[str, object]]", values)
    names = tuple(objects[0])
    if any(tuple(v) != names for v in objects):
        return values
    columns = zip(*(v.values() for v in objects), strict=True) if names else ()
    inner = {n: _nested(list(own), texts) for n, own in zip(names, columns, strict=True)}
    return Table(inner, len(values))


class Record(Mapping[str, object]):
    """One line of a table: a mapping that cannot be changed."""

    __slots__ = ("place", "table")

    def __init__(self, table: Table, place: int) -> None:
        self.table, self.place = table, place

    def __getitem__(self, name: str) -> object:
        return self.table.columns[name][self.place]

    def get(self, name: str, default: object = None) -> object:  # type: ignore[override]
        """As of any mapping; that of `Mapping` raises and catches an error where a name is missing."""
        column = self.table.columns.get(name)
        return default if column is None else column[self.place]

    def __contains__(self, name: object) -> bool:
        return name in self.table.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.table.columns)

    def __len__(self) -> int:
        return len(self.table.columns)

    def keys(self) -> KeysView[str]:
        return self.table.columns.keys()

    def __repr__(self) -> str:
        return repr(dict(self))


class Tables:
    """Puts lines into the tables of their shapes: their names, and those of the objects in them."""

    def __init__(self) -> None:
        self._open: dict[tuple[object, ...], Table] = {}
        self._texts: Texts = {}

    def add(self, line: Mapping[str, object]) -> Record:
        """The line as a record."""
        shape = (*line, *(tuple(v) for v in line.values() if v.__class__ is dict))
        table = self._open.get(shape)
        if table is None:
            table = self._open[shape] = Table({name: [] for name in line})
        record = table.add(line)
        if table.length >= MOST:
            table.pack(self._texts)
            del self._open[shape]
        return record

    def pack(self) -> None:
        """Pack all tables. Later lines begin new ones."""
        for table in self._open.values():
            table.pack(self._texts)
        self._open = {}
