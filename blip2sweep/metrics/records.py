"""Reading predictions and references in the formats of COCO captions and VQAv2."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from blip2sweep.errors import UserError

Record = Mapping[str, Any]


class ScoreError(UserError):
    """A predictions or references file cannot be scored; the message is one line."""


class Predictions(NamedTuple):
    """What a model said: id column ("image_id" or "question_id") and id (as text) -> caption or answer."""

    id_column: str
    texts: dict[str, str]


class Captions(NamedTuple):
    """References of captions: image id (as text) -> one or more captions."""

    captions: dict[str, list[str]]


class Questions(NamedTuple):
    """References of questions: question id (as text) -> human answers, and -> "yes/no", "number" or "other"."""

    answers: dict[str, list[str]]
    answer_types: dict[str, str]


_TEXT_COLUMNS = {"image_id": "caption", "question_id": "answer"}
_PREDICTION_COLUMNS = "columns image_id and caption, or question_id and answer"
_REFERENCE_FORMS = (
    'COCO captions ({"annotations": [{"image_id", "caption"}]}), [{"image_id", "captions"}], '
    'or VQAv2 ({"annotations": [{"question_id", "answer_type", "answers": [{"answer"}]}]})'
)


def read_predictions(path: str | Path) -> Predictions:
    """Predictions from .json (COCO or VQA results), .jsonl, .csv or .parquet; further columns are ignored.

    Raises ScoreError: no such file, broken file, missing columns, a text that is no text, an id twice.
    """
    path = Path(path)
    records = _records(path)
    if not records:
        raise ScoreError(f"{path} has no predictions; give {_PREDICTION_COLUMNS}")
    for id_column, text_column in _TEXT_COLUMNS.items():
        if {id_column, text_column} <= set(records[0]):
            return Predictions(id_column, _texts(path, records, id_column, text_column))
    raise ScoreError(f"{path} has columns {', '.join(records[0]) or 'none'}; give {_PREDICTION_COLUMNS}")


def read_references(path: str | Path) -> Captions | Questions:
    """References from a COCO captions annotation file, a list of image_id and captions, or VQAv2 annotations (JSON).

    Raises ScoreError: no such file, broken file, another form, an id twice, no reference at all.
    """
    path = Path(path)
    content = _json(path, _text(path))
    records = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise ScoreError(f"{path} holds no list of references; give {_REFERENCE_FORMS}")
    try:
        return _references(path, records)
    except (KeyError, TypeError) as error:
        raise ScoreError(f"{path} has a reference of another form ({error!r}); give {_REFERENCE_FORMS}") from error


def _references(path: Path, records: list[Record]) -> Captions | Questions:
    if "answers" in records[0]:
        answers = _by_id(path, records, "question_id", lambda record: [_string(a["answer"]) for a in record["answers"]])
        return Questions(answers, _by_id(path, records, "question_id", lambda record: _string(record["answer_type"])))
    if "captions" in records[0]:
        return Captions(_by_id(path, records, "image_id", lambda record: [_string(c) for c in record["captions"]]))
    captions: dict[str, list[str]] = {}
    for record in records:
        captions.setdefault(str(record["image_id"]), []).append(_string(record["caption"]))
    return Captions(captions)


def _by_id(path: Path, records: Sequence[Record], column: str, value: Callable[[Record], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records:
        key = str(record[column])
        if key in found:
            raise ScoreError(f"{path} has {column} {key} twice; give each once")
        found[key] = value(record)
    return found


def _texts(path: Path, records: Sequence[Record], id_column: str, text_column: str) -> dict[str, str]:
    for number, record in enumerate(records, start=1):
        if record.get(id_column) is None or not isinstance(record.get(text_column), str):
            raise ScoreError(
                f"{path}, record {number}: {id_column} {record.get(id_column)!r} with {text_column} "
                f'{record.get(text_column)!r}; give an id and a text ("" if the model said nothing)'
            )
    return _by_id(path, records, id_column, lambda record: record[text_column])


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _records(path: Path) -> list[Record]:
    readers = {".json": _json_records, ".jsonl": _jsonl_records, ".csv": _csv_records, ".parquet": _parquet_records}
    if path.suffix not in readers:
        raise ScoreError(f"{path} ends in {path.suffix!r}; give {', '.join(readers)}")
    if not path.is_file():
        raise ScoreError(f"{path} does not exist; give a predictions file")
    return readers[path.suffix](path)


def _json_records(path: Path) -> list[Record]:
    content = _json(path, _text(path))
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise ScoreError(f"{path} is not a list of objects; give {_PREDICTION_COLUMNS}")
    return content


def _jsonl_records(path: Path) -> list[Record]:
    # Not splitlines(): it also splits at characters that JSON allows inside a string.
    lines = [(number, line) for number, line in enumerate(_text(path).split("\n"), start=1) if line.strip()]
    records = [_json(path, line, number) for number, line in lines]
    for (number, _), record in zip(lines, records, strict=True):
        if not isinstance(record, dict):
            raise ScoreError(f"{path}, line {number}: not an object; give {_PREDICTION_COLUMNS}")
    return records


def _csv_records(path: Path) -> list[Record]:
    import pandas as pd

    # Everything as text: a model may well answer "NA" or "1.0".
    return _frame_records(path, lambda: pd.read_csv(path, dtype=str, keep_default_na=False))


def _parquet_records(path: Path) -> list[Record]:
    import pyarrow.parquet

    return _frame_records(path, lambda: pyarrow.parquet.read_table(path).to_pandas())


def _frame_records(path: Path, read: Callable[[], Any]) -> list[Record]:
    try:
        records: list[Record] = read().to_dict("records")
    except Exception as error:  # readers raise many kinds, all of them about this file
        raise ScoreError(f"{path} cannot be read: {_first_line(error)}; write it again") from error
    return records


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ScoreError(f"{path} does not exist; give {_REFERENCE_FORMS}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ScoreError(f"{path} cannot be read: {_first_line(error)}; give a UTF-8 file") from error


def _json(path: Path, text: str, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {line or error.lineno}, column {error.colno}"
        raise ScoreError(f"{path}, {where}: not JSON ({error.msg}); is the file complete?") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
