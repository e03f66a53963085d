"""The rows of each file format. A function reads one list: it takes objects, returns typed rows, collects mistakes.

The result is complete only if no mistake was collected. The caller reads all lists of an input first and then reports
their mistakes, so that a user sees the mistakes of every file at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from blip2sweep.errors import UserError
from blip2sweep.rows import fields
from blip2sweep.rows.fields import Id, shown
from blip2sweep.rows.mistakes import Mistakes
from blip2sweep.rows.row_list import Field, RowList


class Image(NamedTuple):
    """name: the file's name, inside the folder of the split."""

    id: Id
    name: str


class Question(NamedTuple):
    """A question and the image it is about."""

    id: Id
    image_id: Id
    question: str


class Answers(NamedTuple):
    """The answers that people gave to a question. image_id, answer_type: None where the file does not say."""

    id: Id
    answers: tuple[str, ...]
    image_id: Id | None
    answer_type: str | None


# ---- captions


def image_rows(path: Path, objects: Sequence[object], mistakes: Mistakes) -> list[Image]:
    """`images` of a COCO captions file."""
    rows = RowList(path, "images", "id", mistakes)
    images = rows.typed(objects, Field("id", fields.ids), Field("file_name", fields.file_names))
    _check_ids(rows, [(i, own) for i, own, _ in images], "every image once")
    return [Image(own, name) for _, own, name in images]


def caption_rows(
    path: Path, objects: Sequence[object], mistakes: Mistakes, images: Sequence[Image] | None = None
) -> dict[Id, list[str]]:
    """`annotations` of a COCO captions file: image id -> captions, in file order.

    images: the file's images, if it has any.
    """
    rows = RowList(path, "annotations", "image_id", mistakes)
    captions = rows.typed(objects, Field("image_id", fields.ids), Field("caption", fields.caption_texts))
    ids = [(i, own) for i, own, _ in captions]
    known = dict.fromkeys(image.id for image in images or ())
    rows.check_one_kind(ids, known, "the ids of 'images'")
    if images is not None and not mistakes.count:
        rows.check_known(ids, known, "names no image of the list 'images'; right: an image for every annotation")
    by_image: dict[Id, list[str]] = {}
    for _, own, caption in captions:
        by_image.setdefault(own, []).append(caption)
    _check_words(rows, [(i, own, by_image[own]) for i, own, _ in captions])
    return by_image


def domain_rows(path: Path, objects: Sequence[object], known: Collection[str], mistakes: Mistakes) -> dict[Id, str]:
    """`images` of a nocaps file: image id -> its domain, one of `known`."""
    rows = RowList(path, "images", "id", mistakes)
    domains = rows.typed(objects, Field("id", fields.ids), Field("domain", fields.texts))
    for i, own, domain in domains:
        if domain not in known:
            rows.wrong_id(i, own, f"'domain' is {shown(domain)}; right: {', '.join(known)}")
    return {own: domain for _, own, domain in domains}


class Captioned(NamedTuple):
    """An image of a Karpathy file. folder: that of its file, None where the file does not say."""

    id: Id
    folder: str | None
    name: str
    split: str
    captions: list[str]


def sentence_rows(path: Path, objects: Sequence[object], mistakes: Mistakes) -> list[Captioned]:
    """`images` of a Karpathy file. The id is the `cocoid`; the `imgid` in a file without any `cocoid`."""
    column = "cocoid" if any(type(row) is dict and "cocoid" in row for row in objects) else "imgid"
    rows = RowList(path, "images", column, mistakes)
    images = rows.typed(
        objects,
        Field(column, fields.ids),
        Field("filepath", fields.folder_names_or_none, needed=False),
        Field("filename", fields.file_names),
        Field("split", fields.texts),
        Field("sentences", fields.sentence_lists),
    )
    _check_ids(rows, [(i, own) for i, own, *_ in images], "every image once")
    _check_words(rows, [(i, own, captions) for i, own, _, _, _, captions in images])
    return [Captioned._make(row[1:]) for row in images]


def listed_captions(path: Path, objects: Sequence[object], mistakes: Mistakes) -> dict[Id, list[str]]:
    """A list of objects with `image_id` and `captions`: image id -> captions."""
    rows = RowList(path, "references", "image_id", mistakes)
    captions = rows.typed(objects, Field("image_id", fields.ids), Field("captions", fields.caption_lists))
    _check_ids(rows, [(i, own) for i, own, _ in captions], "every image once, with all its captions")
    _check_words(rows, captions)
    return {own: texts for _, own, texts in captions}


def _check_words(rows: RowList, captions: Sequence[tuple[int, Id, list[str]]]) -> None:
    """An image needs one caption with a word: against blank references, every prediction would score 0."""
    for i, own, texts in captions:
        if not texts[0].strip() and not any(text.strip() for text in texts):
            rows.wrong_id(i, own, "no caption of this image has a word; right: one that does")


# ---- questions


def question_rows(path: Path, objects: Sequence[object], mistakes: Mistakes) -> list[Question]:
    """`questions` of a VQAv2 file."""
    rows = RowList(path, "questions", "question_id", mistakes)
    asked = rows.typed(
        objects, Field("question_id", fields.ids), Field("image_id", fields.ids), Field("question", fields.questions)
    )
    _check_ids(rows, [(i, own) for i, own, *_ in asked], "every question once")
    RowList(path, "questions", "image_id", mistakes).check_one_kind([(i, image) for i, _, image, _ in asked])
    return [Question._make(row[1:]) for row in asked]


def answer_rows(
    path: Path, objects: Sequence[object], mistakes: Mistakes, questions: Mapping[Id, Question] | None = None
) -> dict[Id, Answers]:
    """`annotations` of a VQAv2 file by question id.

    questions: each annotation must belong to one of them and its image.
    """
    rows = RowList(path, "annotations", "question_id", mistakes)
    values = rows.typed(
        objects,
        Field("question_id", fields.ids),
        Field("answers", fields.answer_lists),
        Field("image_id", fields.ids_or_none, needed=False),
        Field("answer_type", fields.answer_types, needed=False),
    )
    given = [(row[0], Answers._make(row[1:])) for row in values]
    ids = [(i, a.id) for i, a in given]
    if len({own for _, own in ids}) < len(ids):
        _check_annotated_once(rows, given)
    if questions is None:
        rows.check_one_kind(ids)
    else:
        rows.check_one_kind(ids, questions, "the ids of the questions")
        if not mistakes.count:
            rows.check_known(
                ids, questions, "such a question is not asked; right: the question file that belongs to it"
            )
        _check_images(rows, given, questions)
    return {a.id: a for _, a in given}


def _check_annotated_once(rows: RowList, given: Sequence[tuple[int, Answers]]) -> None:
    first: dict[Id, tuple[int, Answers]] = {}
    for i, own in given:
        before, earlier = first.setdefault(own.id, (i, own))
        if before != i:
            other = "with the same answers" if earlier.answers == own.answers else "with other answers"
            what = f"stands twice, first as {rows.name}[{before}] {other}; right: one annotation a question"
            rows.wrong_id(i, own.id, what)


def _check_images(rows: RowList, given: Sequence[tuple[int, Answers]], questions: Mapping[Id, Question]) -> None:
    """An annotation names the image of its question, or none."""
    for i, own in given:
        asked = questions.get(own.id)
        if asked is not None and own.image_id is not None and own.image_id != asked.image_id:
            of, at = shown(own.image_id), shown(asked.image_id)
            rows.wrong_id(i, own.id, f"is of image {of}, its question of image {at}; right: the same image")


# ---- predictions


def prediction_rows(path: Path, objects: Sequence[object], column: str, text: str, mistakes: Mistakes) -> dict[Id, str]:
    """Predictions as a list of objects: id -> text. column, text: the names of the two fields."""
    rows = RowList(path, "predictions", column, mistakes)
    predicted = rows.typed(objects, Field(column, fields.ids), Field(text, fields.texts))
    _check_ids(rows, [(i, own) for i, own, _ in predicted], "one prediction each")
    return {own: words for _, own, words in predicted}


def own_predictions(path: Path, columns: Mapping[str, object], mistakes: Mistakes) -> dict[str, dict[Id, str]]:
    """Predictions as columns, as files in `predictions/` have them: `question_id` -> id -> text.

    Where every sample's id is its image's, as for captions, `image_id` is a second key. Raises UserError where the
    columns are not lists of one length.
    """
    taken = [columns[name] for name in ("id", "image_id", "text")]
    lists = [c for c in taken if isinstance(c, list)]
    if len(lists) < len(taken) or len({len(c) for c in lists}) != 1 or not lists[0]:
        raise UserError(
            f"{path}: the columns id, image_id and text are no lists of one length; right: the file as written"
        )
    records = [{"id": i, "image_id": image, "text": words} for i, image, words in zip(*lists, strict=True)]
    predicted = prediction_rows(path, records, "id", "text", mistakes)
    return {"question_id": predicted, **({"image_id": predicted} if lists[0] == lists[1] else {})}


def _check_ids(rows: RowList, ids: Sequence[tuple[int, Id]], right: str) -> None:
    rows.check_unique(ids, right)
    rows.check_one_kind(ids)
