"""Takes in many lines of a journal at once, where all of them are as they should be."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

from blip2sweep.files import SEALED
from blip2sweep.results.line_shapes import CUT, Shape, shape_of
from blip2sweep.results.lines import parse
from blip2sweep.results.record import Record, Tables
from blip2sweep.wire.lines import Line, line_of

LINES = 1024  # that are read together, at most
LEAST = 64  # that are worth it
FEW = 8  # lines of one shape that are as quickly parsed one by one
WASTED = (
    4096  # lines that were cut in vain, more than those that were not, after which a ledger's lines are no more cut
)
Pieces = list[bytes]


class Kept(NamedTuple):
    """A line that was put into a table. name: of the attempt, or of the source of a measurement."""

    event: str
    key: str
    name: str
    record: Record


class Batches:
    """Reads lines by their shapes, into tables."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._shapes: dict[tuple[object, ...], Shape | None] = {}
        self._mixed = set[tuple[int, bytes]]()  # numbers of pieces and beginnings that several shapes have
        self._wasted = 0

    def read(self, lines: Sequence[bytes], number: int) -> list[Kept | Line] | None:
        """The lines in their order, those of no common shape as they are parsed. None, and nothing is kept, where one is
        damaged or odd or has another number than the next. number: of the first."""
        pieces = None if self._wasted > WASTED or len(lines) < LEAST else _cut(lines, number)
        if pieces is None:
            return None
        found: list[Kept | Line | None] = [None] * len(lines)
        together = [*self._together(pieces)]
        alone = set(range(len(lines))).difference(*(places for places, _, _ in together))
        for i in sorted(alone):
            found[i] = line = line_of(parse(lines[i]))
            if line is None:
                return None
            line.pop("crc", None)  # type: ignore[typeddict-item]
        self._wasted += 2 * len(alone) - len(lines)
        for places, shape, values in together:
            for i, kept in zip(places, self._kept(shape, values), strict=True):
                found[i] = kept
        return cast("list[Kept | Line]", found)

    def _together(self, lines: Sequence[Pieces]) -> Iterable[tuple[list[int], Shape, list[list[object]]]]:
        """(places of lines, their shape, its values), of lines that can be parsed together."""
        groups: dict[tuple[object, ...], list[int]] = {}
        for i, pieces in enumerate(lines):
            groups.setdefault((len(pieces), pieces[0]), []).append(i)
        for key in [key for key in groups if key in self._mixed]:
            groups |= _by_names(groups.pop(key), lines)
        while groups:
            key, places = groups.popitem()
            if len(places) < FEW:
                continue
            own = [lines[i] for i in places]
            if key not in self._shapes:
                self._shapes[key] = shape_of(own[0])
            shape = self._shapes[key]
            values = shape.values(own) if shape else None
            if shape and values is not None:
                yield places, shape, values
            elif len(key) == 2:
                self._mixed.add(cast("tuple[int, bytes]", key))
                groups |= _by_names(places, lines)

    def _kept(self, shape: Shape, values: Sequence[list[object]]) -> Iterable[Kept]:
        of = dict(zip((leaf.names for leaf in shape.leaves), values, strict=True))
        if shape.event == "measured":
            names = iter(cast("list[str]", of[("source",)]))
        else:
            attempts = of.get(("attempt",), [None] * len(values[0]))
            names = (str(a or t) for a, t in zip(attempts, of[("time",)], strict=True))
        keys = cast("list[str]", of[("key",)])
        records = self._tables.extend(shape, values)
        return map(Kept._make, zip([shape.event] * len(keys), keys, names, records, strict=True))


def _cut(lines: Sequence[bytes], number: int) -> list[Pieces] | None:
    """The pieces of sealed lines with running numbers, without their checksums. None where a line is anything else."""
    found = []
    for i, line in enumerate(lines, number):
        if not line.endswith(b',"n":%d,"crc":"%08x"}' % (i, zlib.crc32(line[:-SEALED]))):
            return None
        found.append(line[: -SEALED - 1].split(CUT))
    return found


def _by_names(places: Iterable[int], lines: Sequence[Pieces]) -> dict[tuple[object, ...], list[int]]:
    """Places of lines by all of their names."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i in places:
        groups.setdefault(("names", *[p[: p.find(b'"')] for p in lines[i][1:]], lines[i][0]), []).append(i)
    return groups
