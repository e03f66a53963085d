"""Rows with a question and its answers together, as the files of TextVQA and VizWiz have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from blip2sweep.rows import fields
from blip2sweep.rows.fields import Check, Id, each_value
from blip2sweep.rows.mistakes import Mistakes
from blip2sweep.rows.row_list import Field, RowList

T = TypeVar("T")


class Asked(NamedTuple):
    """A question about an image. answers, answer_type: None where the file does not say; tokens: words in the image."""

    id: Id
    image_id: Id
    question: str
    answers: tuple[str, ...] | None
    answer_type: str | None = None
    tokens: tuple[str, ...] | None = None


def textvqa_rows(path: Path, objects: Sequence[object], mistakes: Mistakes, unanswered: bool = False) -> list[Asked]:
    """`data` of a TextVQA file. unanswered: whether it may be one without answers, as of a test split."""
    rows = RowList(path, "data", "question_id", mistakes)
    found = rows.typed(
        objects,
        Field("question_id", fields.ids),
        Field("image_id", fields.ids),
        Field("question", fields.questions),
        Field("answers", _answers(unanswered), needed=False),
        Field("ocr_tokens", _optional(_words), needed=False),
    )
    asked = [Asked(own, image, text, answers, None, words) for _, own, image, text, answers, words in found]
    return _checked(rows, asked, [row[0] for row in found], unanswered)


def vizwiz_rows(path: Path, objects: Sequence[object], mistakes: Mistakes, unanswered: bool = False) -> list[Asked]:
    """The list that a VizWiz file is. A question has no id but its image's name. unanswered: as of `textvqa_rows`."""
    rows = RowList(path, "", "image", mistakes)
    found = rows.typed(
        objects,
        Field("image", fields.file_names),
        Field("question", fields.questions),
        Field("answers", _answers(unanswered), needed=False),
        Field("answer_type", fields.answer_types, needed=False),
    )
    asked = [Asked(image, image, text, answers, kind) for _, image, text, answers, kind in found]
    return _checked(rows, asked, [row[0] for row in found], unanswered)


def ocr_rows(path: Path, objects: Sequence[object], mistakes: Mistakes) -> dict[Id, tuple[str, ...]]:
    """`data` of a file of OCR tokens: image id -> the words in it, in file order."""
    rows = RowList(path, "data", "image_id", mistakes)
    found = rows.typed(objects, Field("image_id", fields.ids), Field("ocr_tokens", each_value(_words)))
    rows.check_unique([(i, own) for i, own, _ in found], "every image once")
    return {own: words for _, own, words in found}


def _checked(rows: RowList, asked: list[Asked], places: Sequence[int], unanswered: bool) -> list[Asked]:
    """The rows, their ids compared. Every question has answers, or where that may be none has."""
    ids = [(i, a.id) for i, a in zip(places, asked, strict=True)]
    rows.check_unique(ids, "every question once")
    rows.check_one_kind(ids)
    without = [(i, a.id) for i, a in zip(places, asked, strict=True) if a.answers is None]
    if len(without) < len(asked):
        for i, own in without:
            rows.wrong_id(i, own, "has no 'answers', and other questions have; right: answers to all, or to none")
    elif asked and not unanswered and not rows.mistakes.count:
        right = "the official file, or task.annotations=FILE for questions that are answered and not scored"
        rows.mistakes.add(rows.path, rows.name or "the list", f"no question has 'answers'; right: {right}")
    return asked


def _answers(unanswered: bool) -> Check[tuple[str, ...] | None]:
    return _optional(_some_answers if unanswered else fields.answers)


def _some_answers(value: object) -> tuple[str, ...] | None:
    """Answers, of which an empty list is none."""
    return None if value == [] else fields.answers(value)


def _words(value: object) -> tuple[str, ...]:
    """A list of texts, which may be empty."""
    if type(value) is not list:
        raise fields.Wrong(f"is {fields.shown(value)}; right: a list of texts")
    return tuple(map(fields.text, value))


def _optional(check: Callable[[object], T | None]) -> Check[T | None]:
    """A check of a column whose rows may lack the field."""
    return each_value(lambda value: None if value is None else check(value))
