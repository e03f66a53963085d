"""Reads a line of the ledger without parsing all of its JSON: the cell's key, the few fields of starts and results that
following a sweep needs, and what a cell's measurement was made from. This is faster than parsing the line, and what is
kept takes a fraction of the memory."""

from __future__ import annotations

import re
from collections.abc import ItemsView, Iterator, Mapping
from typing import cast

import orjson

from blip2sweep.results.lines import parse
from blip2sweep.wire.lines import Line, ResultLine, StartLine

MEASURED = b'{"event":"measured",'
KEY = re.compile(rb'"key":"([^"]*)"')
# The fields that `Journal.write` puts first. A line whose text has escapes does not match and goes to the JSON parser.
HEAD = re.compile(
    rb'\{"event":"(started|result)","time":([0-9.]+),"host":"([^"\\]*)","pid":([0-9]+),'
    rb'"key":"([^"\\]*)","sweep":"([^"\\]*)","run":"([^"\\]*)","attempt":"([^"\\]*)"'
)
FILES = re.compile(rb'"predictions":(?:null|"([^"\\]*)")(?:,"files":(\{[^{}]*\}))?')
KNOWN = re.compile(rb',("replaces":\[[^\[\]]*\],"starts":\[[^\[\]]*\])')
STOPPED = re.compile(rb'"stopped":(\{[^{}]*\})')
SEMANTICS = re.compile(rb'"semantics":(\d+)')
NUMBERS = re.compile(rb'"metrics":(\{[^{}]*\})(?:,"retained":(\{[^{}]*\}))?')
SHARED = ("key", "host", "sweep", "run", "process", "versions", "cpu")
HALF = re.compile(rb'"(?:dtype|stored)":"[^"]*float16')


def brief(head: re.Match[bytes], line: bytes) -> StartLine | ResultLine:
    """The record of a line that HEAD matched. The field `files` stays JSON; `files_of` parses it."""
    record = orjson.loads(head[0] + b"}")
    if head[1] == b"result" and (files := FILES.search(line, head.end())):
        record["predictions"] = files[1].decode() if files[1] else None
        record["files"] = files[2]
        if known := KNOWN.match(line, files.end()):
            record |= orjson.loads(b"{" + known[1] + b"}")
        if stopped := STOPPED.search(line, files.end()):
            record["stopped"] = orjson.loads(stopped[1])
        record["half"] = HALF.search(line, files.end()) is not None
        record["semantics"] = int(found[1]) if (found := SEMANTICS.search(line, files.end())) else None
    known_fields: StartLine | ResultLine = record
    return known_fields


class Numbers(Mapping[str, list[float | None]]):
    """The numbers of a measurement by metric, as the JSON of its line, which is parsed whenever they are asked for."""

    __slots__ = ("_json",)

    def __init__(self, json: bytes) -> None:
        self._json = json

    def _parsed(self) -> dict[str, list[float | None]]:
        found = parse(self._json)
        assert isinstance(found, dict)
        return found

    def __getitem__(self, metric: str) -> list[float | None]:
        return self._parsed()[metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())

    def items(self) -> ItemsView[str, list[float | None]]:
        return self._parsed().items()


def with_numbers(line: bytes) -> object:
    """The record of a `measured` line, its numbers as `Numbers`; None where the line is no JSON."""
    found = NUMBERS.search(line)
    if found is None:
        return parse(line)
    record = parse(line[: found.start()] + b'"metrics":0' + line[found.end() :])
    if isinstance(record, dict):
        record["metrics"] = Numbers(found[1])
        if found[2] is not None:
            record["retained"] = Numbers(found[2])
    return record


def share_texts(line: Line, known: dict[object, object]) -> None:
    """Put one object in the place of equal texts of many lines: hosts, runs, and the columns of results. known: {text:
    itself}."""
    record = cast("dict[str, object]", line)
    for name in SHARED:
        if (text := record.get(name)).__class__ is str:
            record[name] = known.setdefault(text, text)
    columns = record.get("columns")
    if isinstance(columns, dict):
        record["columns"] = {k: known.setdefault(v, v) if v.__class__ is str else v for k, v in columns.items()}
