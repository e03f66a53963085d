"""One list of objects in a file: its fields checked, its ids compared, each mistake named with its place."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar, cast, overload

from blip2sweep.errors import UserError
from blip2sweep.rows.fields import Check, Id, Wrong, shown
from blip2sweep.rows.mistakes import Mistakes

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
Value = TypeVar("Value", covariant=True)
Row = dict[str, object]
MISSING = object()


class Field(NamedTuple, Generic[Value]):
    """A field of every row. An optional one is None where a row lacks it."""

    name: str
    check: Check[Value]
    needed: bool = True


@dataclass(frozen=True)
class RowList:
    """The list `name` of a file. label: the field by which messages name a row; mistakes: where they are collected."""

    path: Path
    name: str
    label: str
    mistakes: Mistakes

    def wrong(self, i: int, row: object, what: str) -> None:
        """Note a mistake of row i."""
        self.mistakes.add(self.path, f"{self.place(i)}{self._label(row)}", what)

    def place(self, i: int) -> str:
        """Where row i stands in the file."""
        return f"{self.name}[{i}]"

    def wrong_id(self, i: int, own: Hashable, what: str) -> None:
        """Note a mistake of row i, whose id was read."""
        self.wrong(i, {self.label: own}, what)

    def _label(self, row: object) -> str:
        """The row's id in brackets, where it has a readable one."""
        own = row.get(self.label) if type(row) is dict else None
        return "" if own is None or isinstance(own, dict | list) else f" ({self.label} {shown(own)})"

    @overload
    def typed(self, objects: Sequence[object], a: Field[A], b: Field[B], /) -> list[tuple[int, A, B]]: ...
    @overload
    def typed(
        self, objects: Sequence[object], a: Field[A], b: Field[B], c: Field[C], /
    ) -> list[tuple[int, A, B, C]]: ...
    @overload
    def typed(
        self, objects: Sequence[object], a: Field[A], b: Field[B], c: Field[C], d: Field[D], /
    ) -> list[tuple[int, A, B, C, D]]: ...
    @overload
    def typed(
        self, objects: Sequence[object], a: Field[A], b: Field[B], c: Field[C], d: Field[D], e: Field[E], /
    ) -> list[tuple[int, A, B, C, D, E]]: ...

    def typed(self, objects: Sequence[object], *wanted: Field[object]) -> Sequence[tuple[object, ...]]:
        """(index, a value a field) of every row without a mistake."""
        try:
            columns = [field.check(_column(objects, field)) for field in wanted]
        except (Wrong, KeyError, TypeError, AttributeError):
            return list(self._one_by_one(objects, wanted))
        return list(zip(range(len(objects)), *columns, strict=True))

    def _one_by_one(self, objects: Sequence[object], wanted: Sequence[Field[object]]) -> Iterator[tuple[object, ...]]:
        for i, row in enumerate(objects):
            if type(row) is not dict:
                needed = ", ".join(field.name for field in wanted if field.needed)
                self.wrong(i, row, f"is {shown(row)}; right: an object with {needed}")
                continue
            values = [self._value(i, row, field) for field in wanted]
            if MISSING not in values:
                yield (i, *values)

    def _value(self, i: int, row: Row, field: Field[object]) -> object:
        """The value of a field. MISSING where it is absent or wrong; the mistake is noted."""
        if field.name not in row:
            if field.needed:
                self.wrong(i, row, f"has no '{field.name}'; right: an object that has one")
            return MISSING if field.needed else None
        try:
            return field.check([row[field.name]])[0]
        except Wrong as wrong:
            self.wrong(i, None if field.name == self.label else row, f"'{field.name}' {wrong}")
            return MISSING

    def check_unique(self, ids: Sequence[tuple[int, Hashable]], right: str) -> None:
        """Note every id that stands twice. ids: (index, id) of the rows."""
        if len({own for _, own in ids}) == len(ids):
            return
        first: dict[Hashable, int] = {}
        for i, own in ids:
            if own in first:
                self.wrong_id(i, own, f"stands twice, first as {self.place(first[own])}; right: {right}")
            first.setdefault(own, i)

    def check_one_kind(self, ids: Sequence[tuple[int, Id]], like: Collection[Id] = (), whose: str = "") -> None:
        """Note the first id of another kind: all are numbers or all are texts, as are the ids in `like`."""
        known = type(next(iter(like))) if like else type(ids[0][1]) if ids else int
        odd = next(((i, own) for i, own in ids if type(own) is not known), None)
        if odd is not None:
            words = ("a number", "texts") if known is str else ("a text", "numbers")
            others = whose or f"those before it in {self.name}"
            self.wrong_id(*odd, f"the id is {words[0]}, {others} are {words[1]}; right: all of one kind")

    def check_known(self, ids: Sequence[tuple[int, Id]], known: Collection[Id], what: str) -> None:
        """Note every id that is not among `known`. what: the message."""
        unknown = {own for _, own in ids} - set(known)
        for i, own in ids if unknown else ():
            if own in unknown:
                self.wrong_id(i, own, what)


def _column(objects: Sequence[object], field: Field[object]) -> list[object]:
    """One field of all rows. Raises KeyError, TypeError or AttributeError where a row lacks it or is no object."""
    rows = cast("Sequence[Row]", objects)
    return [row[field.name] for row in rows] if field.needed else [row.get(field.name) for row in rows]


def list_of(data: object, name: str, path: Path, right: str) -> list[object]:
    """The list `name` of a file. data: what the file holds, an object. Raises UserError where there is no such list."""
    if type(data) is not dict:
        raise UserError(f"{path}: holds {shown(data)}; right: an object with the list '{name}': {right}")
    objects = data.get(name)
    if type(objects) is not list:
        what = f"'{name}' is {shown(objects)}" if name in data else f"no list '{name}'"
        raise UserError(f"{path}: {what}; right: {right}")
    if not objects:
        raise UserError(f"{path}: the list '{name}' is empty; right: {right}")
    return objects
