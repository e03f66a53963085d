"""Reads a line of the ledger without parsing all of its JSON: the cell's key, and the few fields of starts and results that
following a sweep needs. This is faster than parsing the line, and what is kept takes a fraction of the memory."""

from __future__ import annotations

import re

import orjson

from blip2sweep.wire.lines import ResultLine, StartLine

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
