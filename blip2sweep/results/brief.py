"""A line of the ledger without its JSON: which cell it is of, and of starts and results the few fields that following a sweep
needs. A few times faster than parsing the line."""

from __future__ import annotations

import re

import orjson

from blip2sweep.wire.lines import ResultLine, StartLine

MEASURED = b'{"event":"measured",'
KEY = re.compile(rb'"key":"([^"]*)"')
# What `Journal.write` puts first into lines of cells; text with escapes is left to the JSON parser.
HEAD = re.compile(
    rb'\{"event":"(started|result)","time":([0-9.]+),"host":"([^"\\]*)","pid":([0-9]+),'
    rb'"key":"([^"\\]*)","sweep":"([^"\\]*)","run":"([^"\\]*)","attempt":"([^"\\]*)"'
)
FILES = re.compile(rb'"predictions":(?:null|"([^"\\]*)")(?:,"files":(\{[^{}]*\}))?')
KNOWN = re.compile(rb',("replaces":\[[^\[\]]*\],"starts":\[[^\[\]]*\])')
SEMANTICS = re.compile(rb'"semantics":(\d+)')


def brief(head: re.Match[bytes], line: bytes) -> StartLine | ResultLine:
    """The record of a HEAD. `files` stays JSON until `files_of` reads it."""
    record = orjson.loads(head[0] + b"}")
    if head[1] == b"result" and (files := FILES.search(line, head.end())):
        record["predictions"] = files[1].decode() if files[1] else None
        record["files"] = files[2]
        if known := KNOWN.match(line, files.end()):
            record |= orjson.loads(b"{" + known[1] + b"}")
        record["semantics"] = int(found[1]) if (found := SEMANTICS.search(line, files.end())) else None
    known_fields: StartLine | ResultLine = record
    return known_fields
