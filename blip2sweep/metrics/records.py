"""Reading predictions and references in the formats of COCO captions and VQAv2."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from blip2sweep.errors import UserError
from blip2sweep.metrics.domains import DOMAINS
from blip2sweep.rows import (
    Id,
    Mistakes,
    answer_rows,
    caption_rows,
    domain_rows,
    listed_captions,
    own_predictions,
    parse,
    prediction_rows,
    read_json,
    read_text,
)
from blip2sweep.rows.fields import shown


class Predictions(NamedTuple):
    """The predicted texts, by "image_id" (captions), by "question_id" (answers), or by both: id -> text."""

    by: dict[str, dict[Id, str]]


class Captions(NamedTuple):
    """References of captions: image id -> one or more captions, and image id -> domain in a file of nocaps."""

    captions: dict[Id, list[str]]
    domains: Mapping[Id, str] = MappingProxyType({})


class Questions(NamedTuple):
    """References of questions: question id -> people's answers, and question id -> type of the answer, None where the
    file has none."""

    answers: dict[Id, Sequence[str]]
    answer_types: dict[Id, str | None]


TEXT_COLUMNS = {"image_id": "caption", "question_id": "answer"}
PREDICTION_FORMS = (
    "a list of objects with image_id and caption, or question_id and answer, alone or as 'predictions' of an object"
)
REFERENCE_FORMS = (
    'COCO captions ({"annotations": [{"image_id", "caption"}]}), [{"image_id", "captions"}], '
    'or VQAv2 ({"annotations": [{"question_id", "answer_type", "answers": [{"answer"}]}]})'
)
_NUMBER = re.compile(r"(-?(?:0|[1-9]\d{0,18}))(?:\.0+)?", re.ASCII)


def read_predictions(path: str | Path) -> Predictions:
    """Predictions from .json (COCO or VQA results, or a file of `predictions/`), .jsonl, .csv or .parquet; further
    columns are ignored.

    Raises UserError with a line a mistake: no such file, broken file, missing columns, an id or text that is none, an
    id twice.
    """
    path, mistakes = Path(path), Mistakes()
    if path.suffix not in READERS:
        raise UserError(f"{path} ends in {path.suffix!r}; right: {', '.join(READERS)}")
    content = READERS[path.suffix](path)
    if isinstance(content, dict) and {"id", "image_id", "text"} <= content.keys():
        found = own_predictions(path, content, mistakes)
    else:
        records = content.get("predictions") if isinstance(content, dict) else content
        found = _listed(path, records, mistakes)
    mistakes.tell()
    return Predictions(found)


def _listed(path: Path, records: object, mistakes: Mistakes) -> dict[str, dict[Id, str]]:
    if not isinstance(records, list) or not records:
        raise UserError(f"{path}: no list of predictions; right: {PREDICTION_FORMS}")
    first = next((r for r in records if isinstance(r, dict)), {})
    for column, text in TEXT_COLUMNS.items():
        if column in first and text in first:
            return {column: prediction_rows(path, records, column, text, mistakes)}
    told = ", ".join(map(str, first))[:200] or "none"
    raise UserError(f"{path}: predictions[0] has the fields {told}; right: {PREDICTION_FORMS}")


def read_references(path: str | Path) -> Captions | Questions:
    """References from a COCO captions annotation file, a list of image_id and captions, or VQAv2 annotations (JSON).

    Raises UserError with a line a mistake: no such file, broken file, another form, an id twice, no reference at all.
    """
    path, mistakes = Path(path), Mistakes()
    content = read_json(path, REFERENCE_FORMS)
    records = content.get("annotations", content.get("references")) if isinstance(content, dict) else content
    if not isinstance(records, list) or not records:
        raise UserError(f"{path}: no list of references; right: {REFERENCE_FORMS}")
    found = _references(path, records, content.get("images") if isinstance(content, dict) else None, mistakes)
    mistakes.tell()
    return found


def _references(path: Path, records: list[object], images: object, mistakes: Mistakes) -> Captions | Questions:
    first: Mapping[str, object] = next((r for r in records if isinstance(r, dict)), {})
    if "answers" in first or "question_id" in first:
        rows = answer_rows(path, records, mistakes)
        return Questions({i: a.answers for i, a in rows.items()}, {i: a.answer_type for i, a in rows.items()})
    if "captions" in first:
        return Captions(listed_captions(path, records, mistakes))
    return Captions(caption_rows(path, records, mistakes), _domains(path, images, mistakes))


def _domains(path: Path, images: object, mistakes: Mistakes) -> dict[Id, str]:
    """The domain of each image; empty where no image has one."""
    if not isinstance(images, list) or not any(isinstance(row, dict) and "domain" in row for row in images):
        return {}
    return domain_rows(path, images, DOMAINS, mistakes)


def spelt_like(ids: Mapping[Id, str], known: Collection[Id]) -> dict[Id, str]:
    """The predictions with ids of the same type as those of the references. CSV has no numbers, so "42" becomes 42
    where all ids are numbers. Raises ValueError where two ids become one."""
    wanted, own = type(next(iter(known))), type(next(iter(ids)))
    if wanted is own:
        return dict(ids)
    turned = {_number(i) if isinstance(i, str) else str(i): text for i, text in ids.items()}
    if len(turned) < len(ids):
        raise ValueError("an id stands twice, written in two ways")
    return turned


def _number(text: str) -> Id:
    """The integer that a text spells in a table; any other text unchanged."""
    found = _NUMBER.fullmatch(text)
    return int(found[1]) if found else text


# ---- files


def _json(path: Path) -> object:
    return read_json(path, PREDICTION_FORMS)


def _jsonl(path: Path) -> object:
    # Not splitlines(): it also splits at characters that JSON allows inside a string.
    lines = [(n, line) for n, line in enumerate(read_text(path, PREDICTION_FORMS).split("\n"), 1) if line.strip()]
    return [parse(line, str(path), PREDICTION_FORMS, number) for number, line in lines]


def _csv(path: Path) -> object:
    """All columns as texts, because a model may answer "NA" or "1.0"."""
    csv.field_size_limit(2**31 - 1)
    try:
        lines = [x for x in csv.reader(io.StringIO(read_text(path, PREDICTION_FORMS), newline=""), strict=True) if x]
    except csv.Error as error:
        raise UserError(f"{path}: not CSV ({error}); right: {PREDICTION_FORMS}") from error
    header = lines[0] if lines else []
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: the column {shown(twice)} stands twice; right: each column once")
    for i, line in enumerate(lines[1:]):
        if any(line[len(header) :]):
            told = f"predictions[{i}] has {len(line)} fields, the header {len(header)}"
            raise UserError(f"{path}: {told}; right: texts that hold a comma in quotes")
    return [dict(zip(header, line, strict=False)) for line in lines[1:]]


def _parquet(path: Path) -> object:
    import pyarrow.parquet

    if not path.is_file():
        raise UserError(f"{path}: no such file; right: {PREDICTION_FORMS}")
    try:
        file = pyarrow.parquet.ParquetFile(path)
        wanted = [c for pair in TEXT_COLUMNS.items() for c in pair if c in file.schema_arrow.names]
        return file.read(wanted or None).to_pylist()
    except Exception as error:  # it raises many kinds, all of them about this file
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read: {told}; right: {PREDICTION_FORMS}") from error


READERS: dict[str, Callable[[Path], object]] = {".json": _json, ".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
