"""Lines of a large ledger, kept column by column: a line is a place in the table of all lines that have its names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence
from typing import cast

from blip2sweep.results.packed import Column, Texts, packed

MOST = 4096  # lines of a table; it is packed when it has so many


class Table:
    """Lines of one shape."""

    __slots__ = ("columns", "length")

    def __init__(self, columns: dict[str, Column], length: int) -> None:
        self.columns, self.length = columns, length

    def __getitem__(self, place: int, /) -> Record:
        return Record(self, place)

    def __len__(self) -> int:
        return self.length


class _Open:
    """A table to which lines are added. Its columns look into the lines until it is packed."""

    def __init__(self, names: Iterable[str]) -> None:
        self.lines: list[tuple[object, ...]] = []
        self.table = Table({name: _Looking(self.lines, i) for i, name in enumerate(names)}, 0)

    def add(self, line: Mapping[str, object]) -> Record:
        """Add a line, which has the names of the columns in their order."""
        self.lines.append(tuple(line.values()))
        return Record(self.table, len(self.lines) - 1)

    def pack(self, texts: Texts) -> None:
        """Pack the columns, objects in them as tables of their own."""
        columns = zip(self.table.columns, zip(*self.lines, strict=True), strict=False)  # no lines have no columns
        self.table.columns.update({name: _nested(values, texts) for name, values in columns})
        self.table.length = len(self.lines)


class _Looking:
    """A column of a table that is not packed."""

    __slots__ = ("_lines", "_number")

    def __init__(self, lines: list[tuple[object, ...]], number: int) -> None:
        self._lines, self._number = lines, number

    def __getitem__(self, place: int, /) -> object:
        return self._lines[place][self._number]

    def __len__(self) -> int:
        return len(self._lines)


def _nested(values: Sequence[object], texts: Texts) -> Column:
    """A packed column of lines of one shape: objects in it have the same names in the same order."""
    if not isinstance(values[0], dict):
        return packed(values, texts)
    columns = zip(*[v.values() for v in cast("Sequence[dict[str, object]]", values)], strict=True)
    # No name has no column.
    return Table({n: _nested(own, texts) for n, own in zip(values[0], columns, strict=False)}, len(values))


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
        self._open: dict[tuple[object, ...], _Open] = {}
        self._texts: Texts = {}

    def add(self, line: Mapping[str, object]) -> Record:
        """The line as a record."""
        shape = (*line, *[tuple(v) if v.__class__ is dict else None for v in line.values()])
        table = self._open.get(shape)
        if table is None:
            table = self._open[shape] = _Open(line)
        record = table.add(line)
        if record.place == MOST - 1:
            table.pack(self._texts)
            del self._open[shape]
        return record

    def pack(self) -> None:
        """Pack all tables. Later lines begin new ones."""
        for table in self._open.values():
            table.pack(self._texts)
        self._open = {}
