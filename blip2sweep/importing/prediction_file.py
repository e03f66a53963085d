"""A file with one text a sample, as another server wrote it: JSON lines, CSV or parquet."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from blip2sweep.errors import UserError
from blip2sweep.importing.mistakes import Mistakes
from blip2sweep.tasks.sample import Sample

# {what a column means: names that it may have}
NAMES = {
    "id": ("id", "sample_id"),
    "text": ("text", "prediction"),
    "tokens": ("tokens",),
    "latency_ms": ("latency_ms",),
    "nll": ("nll", "nll_sum"),
    "nll_tokens": ("nll_tokens",),
}
FORMS = "right: .jsonl, .csv or .parquet with the columns id and text, and where there are any tokens, latency_ms, nll"
SHOWN = 3  # ids of one mistake that are listed; the others are counted
Record = Mapping[str, object]


class Row(NamedTuple):
    """One sample's output. None: not in the file. nll: of the target, in nats."""

    text: str
    tokens: int | None
    latency_ms: float | None
    nll: float | None
    nll_tokens: int | None


@dataclass(frozen=True)
class Outputs:
    """A file's rows in the order of the samples, and its columns without a meaning."""

    rows: Sequence[Row]
    unused: Sequence[str]


def read_outputs(path: Path, samples: Sequence[Sample]) -> Outputs:
    """The outputs in a file for exactly these samples.

    Raises UserError, one line with all mistakes: a file that cannot be read or lacks a column, samples that are missing,
    unknown or there twice, values that are none of their column.
    """
    mistakes, records = Mistakes(path), _read(path)
    columns = list(dict.fromkeys(k for _, r in records for k in r))
    named = {meaning: next((c for c in names if c in columns), None) for meaning, names in NAMES.items()}
    if not named["id"] or not named["text"]:
        lacking = " and ".join(m for m in ("id", "text") if not named[m])
        raise UserError(f"{path}: no column {lacking} (found: {', '.join(columns) or 'none'}); {FORMS}")
    known = {str(s.id): i for i, s in enumerate(samples)}
    found, lines = dict[int, Row](), dict[int, int]()
    for line, record in records:
        place, row = known.get(_id(record.get(str(named["id"])))), _row(record, named, mistakes, line)
        if place is None:
            mistakes.add(f"id {record.get(str(named['id']))!r} is none of the {len(samples)} samples", line)
        elif place in lines:
            mistakes.add(f"id {samples[place].id} is there twice, first in line {lines[place]}", line)
        else:
            lines[place] = line
            found[place] = row
    missing = [str(s.id) for i, s in enumerate(samples) if i not in lines]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        mistakes.add(f"{len(missing)} of {len(samples)} samples are missing: {', '.join(missing[:SHOWN])}{more}")
    for meaning in ("tokens", "nll"):
        without = len([row for row in found.values() if getattr(row, meaning) is None])
        if 0 < without < len(found):
            mistakes.add(f"{without} samples have no {named[meaning]}; right: that of every sample, or of none")
    mistakes.check()
    return Outputs([found[i] for i in range(len(samples))], [c for c in columns if c not in named.values()])


def _id(value: object) -> str:
    """An id as text: parquet and spreadsheets turn whole numbers into floats."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole and isinstance(value, float) else str(value)


def _row(record: Record, named: Mapping[str, str | None], mistakes: Mistakes, line: int) -> Row:
    def value(meaning: str) -> object:
        column = named[meaning]
        return record.get(column) if column else None

    def number(meaning: str, whole: bool = False) -> float | None:
        try:
            return _number(value(meaning), whole)
        except ValueError:
            right = "a whole number from 0" if whole else "a number from 0"
            mistakes.add(f"{named[meaning]} is {value(meaning)!r}; right: {right}", line)
            return None

    text = value("text")
    if not isinstance(text, str):
        mistakes.add(f"{named['text']} is {text!r}; right: a text, which may be empty", line)
    tokens, counted = number("tokens", whole=True), number("nll_tokens", whole=True)
    return Row(
        str(text), None if tokens is None else int(tokens), number("latency_ms"), number("nll"),
        None if counted is None else int(counted),
    )  # fmt: skip


def _number(value: object, whole: bool) -> float | None:
    """None for a blank cell. Raises ValueError for what is no number from 0, or no whole one."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("no number")
    found = float(value)
    if not math.isfinite(found) or found < 0 or (whole and not found.is_integer()):
        raise ValueError("no such number")
    return found


# ---- files


def _read(path: Path) -> list[tuple[int, Record]]:
    """(line, from 1, record) of each sample."""
    reader = READERS.get(path.suffix)
    if reader is None:
        raise UserError(f"{path}: ends in {path.suffix!r}; {FORMS}")
    try:
        found = list(reader(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {FORMS}") from error
    except (ValueError, csv.Error) as error:  # pyarrow's errors are kinds of ValueError
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())[:150]}); {FORMS}") from error
    if not found:
        raise UserError(f"{path}: no line; {FORMS}")
    return found


def _jsonl(path: Path) -> Iterator[tuple[int, Record]]:
    # Not splitlines(): it also splits at characters that JSON allows inside a string.
    for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
        if line.strip():
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError(f"line {number} is no JSON object")
            yield number, record


def _csv(path: Path) -> Iterator[tuple[int, Record]]:
    reader = csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline=""), strict=True)
    for record in reader:
        if None in record or None in record.values():
            raise ValueError(f"line {reader.line_num} has other fields than the header")
        yield reader.line_num, record


def _parquet(path: Path) -> Iterator[tuple[int, Record]]:
    import pyarrow.parquet

    if not path.is_file():
        raise UserError(f"{path}: no such file; {FORMS}")
    return iter(enumerate(pyarrow.parquet.read_table(path).to_pylist(), 1))


READERS: Mapping[str, Callable[[Path], Iterator[tuple[int, Record]]]] = {
    ".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet,
}  # fmt: skip
