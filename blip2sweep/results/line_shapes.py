"""Parses lines of one shape together: each is cut at its names, and the values of one name are one JSON list.

A line of a journal is JSON without blanks, in which `,"` stands before every name. Lines of one shape have the same names in
the same order, also in their objects. So the pieces of two such lines differ in values alone. Where anything else differs,
`Shape.values` gives None, and the lines have to be parsed one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import orjson

from blip2sweep.wire.lines import line_of

CUT = b',"'
EVENTS = ("started", "result", "measured")  # of which a ledger has many lines of one shape
PLAIN = ("key", "time", "source", "attempt")  # fields that name a line, and are no objects


class Leaf(NamedTuple):
    """A value of every line of a shape: its name, or those of its object and itself, and what stands around it in the
    piece."""

    names: tuple[str, ...]
    before: bytes
    after: bytes
    is_empty: bool  # stands for an object without names


class Shape:
    """The names of lines, and how the lines are cut."""

    def __init__(self, event: str, leaves: Sequence[Leaf]) -> None:
        self.event, self.leaves = event, leaves
        self._known: list[tuple[bytes, object]] = [(b"", None)] * len(leaves)  # the last piece that all lines had

    def values(self, lines: Sequence[Sequence[bytes]]) -> list[list[object]] | None:
        """The values of each leaf. lines: the pieces of each, as many as there are leaves. None where a line has another
        shape."""
        found = []
        for i, pieces in enumerate(zip(*lines, strict=True)):
            values = (
                self._same(i, pieces) if pieces.count(pieces[0]) == len(pieces) else _values(self.leaves[i], pieces)
            )
            if values is None:
                return None
            found.append(values)
        return found

    def _same(self, i: int, pieces: Sequence[bytes]) -> list[object] | None:
        """The value that all lines have."""
        known, value = self._known[i]
        if known != pieces[0]:
            parsed = _values(self.leaves[i], pieces[:1])
            if parsed is None:
                return None
            self._known[i] = pieces[0], (value := parsed[0])
        return [[*value] for _ in pieces] if isinstance(value, list) else [value] * len(pieces)


def shape_of(pieces: Sequence[bytes]) -> Shape | None:
    """The shape of a line that is cut into these pieces, without its checksum. None where its lines cannot be parsed
    together: they are few, or have objects in objects, texts in lists, a name twice or texts that end in a comma, or another
    field has the checksum's name."""
    try:
        record = line_of(orjson.loads(CUT.join(pieces) + b"}"))
    except ValueError:
        return None
    if record is None or record["event"] not in EVENTS or "crc" in record:
        return None
    if any(isinstance(record.get(name), dict) for name in PLAIN):
        return None
    leaves = [leaf for name, value in record.items() for leaf in _leaves(name, value)]
    leaves[0] = leaves[0]._replace(before=b'{"' + leaves[0].before)
    shape = Shape(record["event"], leaves)
    if leaves[0].names != ("event",) or len(leaves) != len(pieces) or shape.values([pieces]) is None:
        return None
    return shape


def _leaves(name: str, value: object) -> list[Leaf]:
    before = orjson.dumps(name)[1:] + b":"
    if not isinstance(value, dict) or not value:
        return [Leaf((name,), before, b"", value == {})]
    befores = [
        before + b"{" + orjson.dumps(own) + b":" if i == 0 else orjson.dumps(own)[1:] + b":"
        for i, own in enumerate(value)
    ]
    afters = [*[b""] * (len(value) - 1), b"}"]
    return [Leaf((name, own), b, a, False) for own, b, a in zip(value, befores, afters, strict=True)]


def _values(leaf: Leaf, pieces: Sequence[bytes]) -> list[object] | None:
    """The values in the pieces of a leaf. None where one is not a scalar or a list of scalars, or has other text around it.

    No piece has a line break, and JSON has none in texts. So a value that does not end within its piece is an error, and a
    list that does not would give a list in a list, or too few values.
    """
    joined, between = b"\n".join(pieces), leaf.after + b"\n" + leaf.before
    if (
        joined.count(between) != len(pieces) - 1
        or not joined.startswith(leaf.before)
        or not joined.endswith(leaf.after)
    ):
        return None
    text = joined[len(leaf.before) : len(joined) - len(leaf.after)].replace(between, b",\n")
    try:
        values = orjson.loads(b"[%b]" % text)
    except ValueError:
        return None
    if len(values) != len(pieces):
        return None
    kinds = set(map(type, values))
    if leaf.is_empty:
        return values if kinds == {dict} and not any(values) else None
    if dict in kinds or (list in kinds and not _are_plain_lists(values, text)):
        return None
    return values


def _are_plain_lists(values: list[list[object]], text: bytes) -> bool:
    """Whether all values are lists of scalars. text: their JSON, one a line."""
    if not text.startswith(b"[") or text.count(b"\n[") != len(values) - 1 or set(map(type, values)) != {list}:
        return False
    if b'"' not in text:  # numbers and words alone
        return text.count(b"[") == len(values) and b"{" not in text
    return {dict, list}.isdisjoint(map(type, chain.from_iterable(values)))
