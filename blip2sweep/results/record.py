"""Lines of a large ledger, kept column by column: a line is a place in the table of all lines that have its names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, KeysView, Mapping, Sequence
from typing import Any, Generic, TypeVar

from blip2sweep.results.line_shapes import Leaf, Shape
from blip2sweep.results.packed import Column, packed

T = TypeVar("T")
MOST = 1024  # lines of a table; it is packed when it has so many


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

    def __init__(self, names: Iterable[str], objects: Collection[str]) -> None:
        """objects: the names of fields whose values are objects with the same names in the same order."""
        self.objects, self.lines = objects, list[tuple[object, ...]]()
        self.table = Table({name: _Looking(self.lines, i) for i, name in enumerate(names)}, 0)

    def add(self, line: Mapping[str, object]) -> Record:
        """Add a line, which has the names of the columns in their order."""
        self.lines.append(tuple(line.values()))
        return Record(self.table, len(self.lines) - 1)

    def pack(self) -> None:
        """Pack the columns, objects in them as tables of their own."""
        columns = self.table.columns
        for name, values in zip([*columns], zip(*self.lines, strict=True), strict=False):  # no name has no values
            columns[name] = (_inner if name in self.objects else packed)(values)
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


class _Growing:
    """A table that grows by columns. They are lists until it is packed."""

    def __init__(self, shape: Shape) -> None:
        self._lists: list[list[object]] = [[] for _ in shape.leaves]
        self._tables = [Table({}, 0)]  # the lines', and those of objects in them
        for leaf, values in zip(shape.leaves, self._lists, strict=True):
            self._place(leaf, values)
        self.table = self._tables[0]

    def _place(self, leaf: Leaf, values: list[object]) -> None:
        columns, name = self._tables[0].columns, leaf.names[0]
        if len(leaf.names) == 1 and not leaf.is_empty:
            columns[name] = values
            return
        if name not in columns:
            columns[name] = inner = Table({}, 0)
            self._tables.append(inner)
        if not leaf.is_empty:
            self._tables[-1].columns[leaf.names[1]] = values

    def extend(self, values: Sequence[list[object]]) -> int:
        """Add the values of each leaf. Returns the place of the first line among them."""
        start = self.table.length
        for own, more in zip(self._lists, values, strict=True):
            own += more
        for table in self._tables:
            table.length = start + len(values[0])
        return start

    def pack(self) -> None:
        """Pack the columns."""
        for table in self._tables:
            for name, values in table.columns.items():
                if isinstance(values, list):
                    table.columns[name] = packed(values)


def _inner(values: Sequence[Any]) -> Table:
    """A packed table of objects that have the same names in the same order."""
    columns = zip(*[v.values() for v in values], strict=True)
    return Table({n: packed(own) for n, own in zip(values[0], columns, strict=False)}, len(values))


class Record(Mapping[str, object]):
    """One line of a table: a mapping that cannot be changed."""

    __slots__ = ("place", "table")

    def __init__(self, table: Table, place: int) -> None:
        self.table, self.place = table, place

    def __getitem__(self, name: str) -> object:
        return self.table.columns[name][self.place]

    def get(self, name: str, default: object = None) -> object:
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


class Adding:
    """A table of these columns to which lines are added value by value."""

    def __init__(self, *names: str) -> None:
        self._lists: list[list[Any]] = [[] for _ in names]
        self._table = Table(dict(zip(names, self._lists, strict=True)), 0)

    def __call__(self, *values: object) -> Record:
        table = self._table
        for own, value in zip(self._lists, values, strict=True):
            own.append(value)
        table.length += 1
        return Record(table, table.length - 1)

    def pack(self) -> None:
        """Pack the columns. Call it when all lines are there."""
        if len(self._table):
            self._table.columns.update({n: packed(v) for n, v in zip([*self._table.columns], self._lists, strict=True)})


class OfTable(Generic[T]):
    """Gives what is found for all lines of a packed table at once. find: gives it by place."""

    def __init__(self, find: Callable[[Table], Sequence[T]]) -> None:
        self._find = find
        self._known: dict[int, tuple[Table, Sequence[T]]] = {}  # {id of a table: (it, what is found)}

    def __call__(self, record: Record) -> T:
        known = self._known.get(id(record.table))
        if known is None:
            known = self._known[id(record.table)] = record.table, self._find(record.table)
        return known[1][record.place]


class Tables:
    """Puts lines into the tables of their shapes: their names, and those of the objects in them."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, ...], list[str]] = {}  # {names: those of objects in the first such line}
        self._open: dict[tuple[object, ...], _Open] = {}
        self._growing: dict[Shape, _Growing] = {}

    def add(self, line: Mapping[str, Any]) -> Record:
        """The line as a record."""
        names = tuple(line)
        objects = self._objects.get(names)
        if objects is None:
            objects = self._objects[names] = [n for n, v in line.items() if v.__class__ is dict]
        shape = (names, *[tuple(v) if (v := line[n]).__class__ is dict else v.__class__ for n in objects])
        table = self._open.get(shape)
        if table is None:
            table = self._open[shape] = _Open(names, [n for n in objects if line[n].__class__ is dict])
        record = table.add(line)
        if record.place == MOST - 1:
            table.pack()
            del self._open[shape]
        return record

    def extend(self, shape: Shape, values: Sequence[list[object]]) -> list[Record]:
        """Lines of one shape as records. values: of each of its leaves."""
        growing = self._growing.get(shape)
        if growing is None:
            growing = self._growing[shape] = _Growing(shape)
        start, table = growing.extend(values), growing.table
        records = [Record(table, place) for place in range(start, len(table))]
        if len(table) >= MOST:
            growing.pack()
            del self._growing[shape]
        return records

    def pack(self) -> None:
        """Pack all tables. Later lines begin new ones."""
        for table in self._open.values():
            table.pack()
        for growing in self._growing.values():
            growing.pack()
        self._open, self._growing = {}, {}
