"""Takes in many lines of a journal at once, where all of them are as they should be."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, cast

from blip2sweep.files import SEALED
from blip2sweep.results.line_shapes import CUT, Shape, shape_of
from blip2sweep.results.lines import parse
from blip2sweep.results.record import Record, Tables
from blip2sweep.wire.lines import Line, line_of

LINES = 1024  # that are read together, at most
LEAST = 64  # that are worth it
FEW = 8  # lines of one shape that are as quickly parsed one by one
WASTED = 4096  # lines that were cut in vain, beyond those that were not, after which none of a ledger's are cut
Pieces = list[bytes]
# Lines that may have one shape: (number of pieces, the first), numbers of further pieces, their names.
Kind = tuple[tuple[int, bytes], tuple[int, ...], tuple[bytes, ...]]


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
        self._shapes: dict[Kind, Shape | None] = {}
        # {(number of pieces, the first) that several shapes have: the pieces whose names tell them apart}
        self._mixed: dict[tuple[int, bytes], set[int]] = {}
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
        alike: dict[tuple[int, bytes], list[int]] = {}
        for i, pieces in enumerate(lines):
            alike.setdefault((len(pieces), pieces[0]), []).append(i)
        groups: dict[Kind, list[int]] = {}
        for kind, places in alike.items():
            groups |= _by_names(kind, self._mixed.get(kind, set()), places, lines)
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
            elif differing := _differing(own):
                known = self._mixed.setdefault(key[0], set())
                known |= differing
                groups |= _by_names(key[0], known, places, lines)

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


def _by_names(
    kind: tuple[int, bytes], numbers: Collection[int], places: Sequence[int], lines: Sequence[Pieces]
) -> dict[Kind, list[int]]:
    """Places of lines of one kind, by the names in their pieces of these numbers."""
    chosen, groups = tuple(sorted(numbers)), dict[Kind, list[int]]()
    for i in places if chosen else ():
        names = tuple([_name(lines[i][number]) for number in chosen])
        groups.setdefault((kind, chosen, names), []).append(i)
    return groups or {(kind, (), ()): [*places]}


def _differing(lines: Sequence[Pieces]) -> set[int]:
    """The numbers of the pieces whose names differ between lines."""
    return {i for i, pieces in enumerate(zip(*lines, strict=True)) if len(set(map(_name, pieces))) > 1}


def _name(piece: bytes) -> bytes:
    return piece[: piece.find(b'"')]
