"""One line of a journal: sealed when it is written, checked when it is read.

A sealed line ends with its running number in the file and a checksum. In a file with sealed lines every line must be
sealed. A file of an earlier version has none; its lines are checked field by field.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import orjson

from blip2sweep.files import SEAL, seal
from blip2sweep.wire.lines import Line

LONGEST = 1_000_000  # bytes of a line without a checksum
LATEST = 9e9  # seconds since 1970; a table cannot hold a later time
KEY = re.compile(r"[\w.-]+")
NUMBER = b',"n":'
TEXTS = ("sweep", "run", "attempt", "job", "code", "imported", "attention", "image_processor", "reason", "warning")
LISTS = ("replaces", "starts")  # lists of attempts' ids
LENGTHS = (1, 5, 6)  # values of one metric: alone; with a baseline and its drop; with the number of changed images too
OF_CONTROL = 4  # values of one metric against a control: its own, the drop and its interval
# Columns of a result that making tables uses without a check.
COLUMNS = {"model": str, "dtype": str, "task": str, "part": str, "recipe": str, "recipe_json": str, "baseline": str,
           "data": str}  # fmt: skip
Record = dict[str, object]


def sealed(record: Mapping[str, object], number: int) -> bytes:
    """The line of a record, with its running number and its checksum, as bytes that end with a newline."""
    text = json.dumps(record, separators=(",", ":"), default=_plain)
    return seal(f'{text[:-1]},"n":{number},'.encode()) + b"\n"


def _plain(value: object) -> object:
    """What JSON has no type for: a mapping, such as a line that is kept in a table, stays one; all else is a text."""
    return dict(value) if isinstance(value, Mapping) else str(value)


def number_of(line: bytes) -> int | None:
    """The running number of a line whose seal holds. None for a damaged line, and for a line without a seal."""
    body, _, found = line.rpartition(SEAL)  # as `files.seal_holds` does, without the cost of a call
    if found != b'%08x"}' % zlib.crc32(body):
        return None
    number = body[-16:-1].rpartition(NUMBER)[2]
    return int(number) if number.isdigit() else None


def parse(line: bytes) -> object:
    """The parsed JSON of a line; None where the line is no JSON."""
    try:
        found: object = orjson.loads(line)
        return found
    except ValueError:
        pass
    try:
        slow: object = json.loads(line)  # accepts NaN, and takes three times as long
        return slow
    except (ValueError, RecursionError):
        return None


def parse_old(line: bytes) -> Line | None:
    """The record of a line without a checksum; None where any field is missing or of another type."""
    record = parse(line) if len(line) <= LONGEST else None
    if not isinstance(record, dict) or not _has_head(record) or _repeats_field(line, record):
        return None
    return cast("Line", record) if _is_worker(record) or _is_of_cell(record) else None


def _repeats_field(line: bytes, record: Record) -> bool:
    """Whether an object of the line has a field twice. Written again, the record is then shorter than the line."""
    with contextlib.suppress(TypeError):  # a number too large for orjson
        if len(orjson.dumps(record)) == len(line):
            return False
    found = False

    def pairs(given: list[tuple[str, object]]) -> Record:
        nonlocal found
        found |= len(dict(given)) < len(given)
        return dict(given)

    json.loads(line, object_pairs_hook=pairs)
    return found


def _has_head(record: Record) -> bool:
    """Check the fields that every line has, and those that are texts wherever they occur."""
    texts = all(isinstance(record.get(k), str | None) for k in TEXTS)
    return texts and isinstance(record.get("event"), str) and isinstance(record.get("host"), str) and _time(record)


def _time(record: Record) -> bool:
    value = record.get("time")
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < LATEST


def _is_worker(record: Record) -> bool:
    typed = _scalar(record.get("turn")) and _scalar(record.get("part")) and _whole(record.get("pack"))
    return record["event"] == "worker" and "key" not in record and "run" in record and typed


def _is_of_cell(record: Record) -> bool:
    key, event = record.get("key"), record["event"]
    if not isinstance(key, str) or not KEY.fullmatch(key):
        return False
    kinds = {"started": _is_start, "result": _is_result, "failed": _is_failure, "measured": _is_measured}
    return kinds[event](record) if event in kinds else event in ("requeued", "unscored")


def _is_start(record: Record) -> bool:
    return _whole(record.get("pid"))


def _is_result(record: Record) -> bool:
    predictions, columns = record.get("predictions", 0), record.get("columns")
    hashed = predictions is None or (isinstance(predictions, str) and bool(KEY.fullmatch(predictions)))
    cost = record.get("cost")
    costed = _scalars(cost) and (not isinstance(cost, dict) or _number(cost.get("seconds", 0.0)))
    known = all(_texts(record[k]) for k in LISTS if k in record) and _is_noted(record.get("files"))
    known &= _is_stopped(record.get("stopped"))
    return hashed and costed and known and _is_published(record) and isinstance(columns, dict) and _are_columns(columns)


def _texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(v, str) for v in values)


def _is_noted(files: object) -> bool:
    """Whether `files` maps names to notes [bytes, mtime in ns, crc32], as `write_noted` returns them."""
    if files is None:
        return True
    notes = files.values() if isinstance(files, dict) else [None]
    return all(isinstance(n, list) and len(n) == 3 and all(map(_whole, n)) for n in notes)


def _is_stopped(told: object) -> bool:
    """Check what is said of a cell that stopped; None of a whole one."""
    if not isinstance(told, dict):
        return told is None
    texts = all(isinstance(told.get(k), str) for k in ("reason", "stop"))
    return texts and _whole(told.get("images")) and _whole(told.get("of")) and _number(told.get("margin"))


def _is_published(record: Record) -> bool:
    """Check the fields of imported results, and the noise floor of baselines."""
    published, noise = record.get("published", {}), record.get("noise")
    numbers = isinstance(published, dict) and all(map(_number, published.values()))
    named = "published" not in record or isinstance(record.get("imported"), str)
    return (
        numbers
        and named
        and (noise is None or (isinstance(noise, dict) and _scalars(noise) and _number(noise.get("flip_rate"))))
    )


def _are_columns(columns: Record) -> bool:
    right = all(isinstance(columns.get(k), kind) for k, kind in COLUMNS.items())
    return (
        right
        and _whole(columns.get("semantics"))
        and "samples" in columns
        and _scalars(columns)
        and _is_recipe(columns["recipe_json"])
    )


def _is_recipe(text: object) -> bool:
    entries = parse(text.encode()) if isinstance(text, str) else None
    return isinstance(entries, list) and all(
        isinstance(e, dict) and isinstance(e.get("step", e.get("method")), str) for e in entries
    )


def _is_failure(record: Record) -> bool:
    columns = record.get("columns")
    described = all(isinstance(record.get(k), str) for k in ("kind", "error"))
    return described and (columns is None or (isinstance(columns, dict) and _are_columns(columns)))


def _is_measured(record: Record) -> bool:
    metrics = record.get("metrics")
    texts = all(isinstance(record.get(k), str) for k in ("source", "scored"))
    texts &= all(_whole(record[k]) for k in ("generation", "images", "of") if k in record)
    texts &= all(_scalars(record.get(k)) for k in ("installed", "baseline_installed", "control_installed"))
    numbers = texts and _whole(record.get("samples")) and _scalars(record.get("noise")) and _scalar(record.get("same"))
    controlled = record.get("controlled", {})
    known = isinstance(controlled, dict) and all(_values(v, (OF_CONTROL,)) for v in controlled.values())
    return numbers and known and isinstance(metrics, dict) and all(_values(v) for v in metrics.values())


def _values(values: object, lengths: Sequence[int] = LENGTHS) -> bool:
    return isinstance(values, list) and len(values) in lengths and all(_number(v) or v is None for v in values)


def _scalars(values: object) -> bool:
    """Whether a value is None, or an object of scalars and lists of scalars."""
    if values is None:
        return True
    return isinstance(values, dict) and all(_scalar(v) or _listed(v) for v in values.values())


def _listed(value: object) -> bool:
    inner = value.values() if isinstance(value, Mapping) else value
    return isinstance(inner, Iterable) and not isinstance(inner, str) and all(map(_scalar, inner))


def _scalar(value: object) -> bool:
    return value is None or isinstance(value, str | bool) or _number(value)


def _number(value: object) -> bool:
    """Whether a column of numbers can hold the value. NaN counts as a number, because earlier versions wrote it."""
    if isinstance(value, bool):
        return False
    return (isinstance(value, int) and abs(value) < 2**62) or (isinstance(value, float) and not math.isinf(value))


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62
