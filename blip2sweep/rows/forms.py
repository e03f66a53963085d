"""The rows of each format. A function a list: objects in, typed rows out, mistakes into the collector.

What a function returns is whole only where the collector stays empty: whoever calls them tells the mistakes when all lists of
the input are read, so that a user sees those of every file at once.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from blip2sweep.errors import UserError
from blip2sweep.rows import fields
from blip2sweep.rows.fields import Check, Id, Wrong, shown
from blip2sweep.rows.mistakes import Mistakes


class Image(NamedTuple):
    """name: of the file, inside the data folder's part for the split."""

    id: Id
    name: str


class Question(NamedTuple):
    id: Id
    image_id: Id
    question: str


class Answers(NamedTuple):
    """What people answered to a question. image_id, answer_type: None where the file does not say."""

    id: Id
    answers: tuple[str, ...]
    image_id: Id | None
    answer_type: str | None


MISSING = object()


def column(found: Sequence[Any], name: str, needed: bool) -> list[Any]:
    """One field of all rows, None where an optional one is not there. Raises KeyError, TypeError, AttributeError."""
    return [row[name] for row in found] if needed else [row.get(name) for row in found]


@dataclass(frozen=True)
class Rows:
    """One list of a file, and where its mistakes go. label: the field by which a row is named in messages."""

    path: Path
    name: str
    label: str
    mistakes: Mistakes

    def wrong(self, i: int, row: Any, what: str) -> None:
        self.mistakes.add(self.path, f"{self.name}[{i}]{self._called(row)}", what)

    def _called(self, row: Any) -> str:
        """The row's id in brackets, where it has one that can be read."""
        own = row.get(self.label) if type(row) is dict else None
        return "" if own is None or isinstance(own, dict | list) else f" ({self.label} {shown(own)})"

    def typed(
        self, found: Sequence[Any], needed: Mapping[str, Check], optional: Mapping[str, Check] | None = None
    ) -> list[tuple[Any, ...]]:
        """(index, a value a needed field, a value or None an optional one), of the rows without mistakes."""
        checks = {**needed, **(optional or {})}
        try:
            columns = [check(column(found, name, name in needed)) for name, check in checks.items()]
        except (Wrong, KeyError, TypeError, AttributeError):
            return list(self._one_by_one(found, needed, checks))
        return list(zip(range(len(found)), *columns, strict=True))

    def _one_by_one(
        self, found: Sequence[Any], needed: Mapping[str, Check], checks: Mapping[str, Check]
    ) -> Iterator[tuple[Any, ...]]:
        for i, row in enumerate(found):
            if type(row) is not dict:
                self.wrong(i, row, f"is {shown(row)}; right: an object with {', '.join(needed)}")
                continue
            values = [self._value(i, row, name, check, name in needed) for name, check in checks.items()]
            if MISSING not in values:
                yield (i, *values)

    def _value(self, i: int, row: dict[str, Any], name: str, check: Check, needed: bool) -> Any:
        """The value of a field, or MISSING where there is none; what is wrong with it is told."""
        if name not in row:
            if needed:
                self.wrong(i, row, f"has no '{name}'; right: an object that has one")
            return MISSING if needed else None
        try:
            return check([row[name]])[0]
        except Wrong as wrong:
            self.wrong(i, None if name == self.label else row, f"'{name}' {wrong}")
            return MISSING

    def once(self, ids: Sequence[tuple[int, Hashable]], right: str) -> None:
        """Each id stands once. ids: (index, id) of the rows."""
        if len({own for _, own in ids}) == len(ids):
            return
        first: dict[Hashable, int] = {}
        for i, own in ids:
            if own in first:
                self.wrong(i, {self.label: own}, f"stands twice, first as {self.name}[{first[own]}]; right: {right}")
            first.setdefault(own, i)

    def one_kind(self, ids: Sequence[tuple[int, Id]], like: Collection[Id] = (), whose: str = "") -> None:
        """All ids are numbers, or all are texts, as those of `like` are where there are any."""
        known = type(next(iter(like))) if like else type(ids[0][1]) if ids else int
        odd = next(((i, own) for i, own in ids if type(own) is not known), None)
        if odd is not None:
            words = ("a number", "texts") if known is str else ("a text", "numbers")
            others = whose or f"those before it in {self.name}"
            self.wrong(
                odd[0], {self.label: odd[1]}, f"the id is {words[0]}, {others} are {words[1]}; right: all of one kind"
            )

    def among(self, ids: Sequence[tuple[int, Id]], known: Collection[Id], what: str) -> None:
        """Every id is one of `known`."""
        strangers = {own for _, own in ids} - set(known)
        for i, own in ids if strangers else ():
            if own in strangers:
                self.wrong(i, {self.label: own}, what)


def list_of(data: Any, name: str, path: Path, right: str) -> list[Any]:
    """The list `name` of a file, which must be an object. Raises UserError."""
    if type(data) is not dict:
        raise UserError(f"{path}: holds {shown(data)}; right: an object with the list '{name}': {right}")
    found = data.get(name)
    if type(found) is not list:
        told = f"'{name}' is {shown(found)}" if name in data else f"no list '{name}'"
        raise UserError(f"{path}: {told}; right: {right}")
    if not found:
        raise UserError(f"{path}: the list '{name}' is empty; right: {right}")
    return found


# ---- captions


def image_rows(path: Path, found: Sequence[Any], mistakes: Mistakes) -> list[Image]:
    """`images` of a COCO captions file."""
    rows = Rows(path, "images", "id", mistakes)
    images = rows.typed(found, {"id": fields.ids, "file_name": fields.file_names})
    _distinct(rows, [(i, own) for i, own, _ in images], "every image once")
    return [Image(own, name) for _, own, name in images]


def caption_rows(
    path: Path, found: Sequence[Any], mistakes: Mistakes, images: Sequence[Image] | None = None
) -> dict[Id, list[str]]:
    """`annotations` of a COCO captions file: image id -> captions, in file order. images: those that there are."""
    rows = Rows(path, "annotations", "image_id", mistakes)
    captions = rows.typed(found, {"image_id": fields.ids, "caption": fields.caption_texts})
    ids = [(i, own) for i, own, _ in captions]
    known = dict.fromkeys(image.id for image in images or ())
    rows.one_kind(ids, known, "the ids of 'images'")
    if images is not None and not mistakes.count:
        rows.among(ids, known, "names no image of the list 'images'; right: an image for every annotation")
    by_image: dict[Id, list[str]] = {}
    for _, own, caption in captions:
        by_image.setdefault(own, []).append(caption)
    _worded(rows, [(i, own, by_image[own]) for i, own, _ in captions])
    return by_image


def sentence_rows(path: Path, found: Sequence[Any], wanted: str, mistakes: Mistakes) -> list[tuple[Image, list[str]]]:
    """`images` of a Karpathy file whose `split` is `wanted`, with the captions of each."""
    rows = Rows(path, "images", "cocoid", mistakes)
    needed = {"cocoid": fields.ids, "filepath": fields.folder_names, "filename": fields.file_names}
    images = rows.typed(found, {**needed, "split": fields.texts, "sentences": fields.sentence_lists})
    _distinct(rows, [(i, own) for i, own, *_ in images], "every image once")
    _worded(rows, [(i, own, captions) for i, own, *_, captions in images])
    return [
        (Image(own, f"{folder}/{name}"), captions)
        for _, own, folder, name, split, captions in images
        if split == wanted
    ]


def listed_captions(path: Path, found: Sequence[Any], mistakes: Mistakes) -> dict[Id, list[str]]:
    """A list of objects with `image_id` and `captions`: image id -> captions."""
    rows = Rows(path, "references", "image_id", mistakes)
    captions = rows.typed(found, {"image_id": fields.ids, "captions": fields.caption_lists})
    _distinct(rows, [(i, own) for i, own, _ in captions], "every image once, with all its captions")
    _worded(rows, captions)
    return {own: texts for _, own, texts in captions}


def _worded(rows: Rows, captions: Sequence[tuple[int, Id, list[str]]]) -> None:
    """Captions of nothing but spaces are no reference: whatever a model says, it would score 0."""
    for i, own, texts in captions:
        if not texts[0].strip() and not any(text.strip() for text in texts):
            rows.wrong(i, {rows.label: own}, "no caption of this image has a word; right: one that does")


# ---- questions


def question_rows(path: Path, found: Sequence[Any], mistakes: Mistakes) -> list[Question]:
    """`questions` of a VQAv2 file."""
    rows = Rows(path, "questions", "question_id", mistakes)
    asked = rows.typed(found, {"question_id": fields.ids, "image_id": fields.ids, "question": fields.questions})
    _distinct(rows, [(i, own) for i, own, *_ in asked], "every question once")
    Rows(path, "questions", "image_id", mistakes).one_kind([(i, image) for i, _, image, _ in asked])
    return [Question._make(row[1:]) for row in asked]


def answer_rows(
    path: Path, found: Sequence[Any], mistakes: Mistakes, questions: Mapping[Id, Question] | None = None
) -> dict[Id, Answers]:
    """`annotations` of a VQAv2 file by question. questions: those that are asked; each has to be of the same image."""
    rows = Rows(path, "annotations", "question_id", mistakes)
    needed = {"question_id": fields.ids, "answers": fields.answer_lists}
    optional = {"image_id": fields.ids_or_none, "answer_type": fields.answer_types}
    given = [(row[0], Answers._make(row[1:])) for row in rows.typed(found, needed, optional)]
    ids = [(i, a.id) for i, a in given]
    if len({own for _, own in ids}) < len(ids):
        _annotated_once(rows, given)
    if questions is None:
        rows.one_kind(ids)
    else:
        rows.one_kind(ids, questions, "the ids of the questions")
        if not mistakes.count:
            rows.among(ids, questions, "such a question is not asked; right: the question file that belongs to it")
        _same_images(rows, given, questions)
    return {a.id: a for _, a in given}


def _annotated_once(rows: Rows, given: Sequence[tuple[int, Answers]]) -> None:
    first: dict[Id, tuple[int, Answers]] = {}
    for i, own in given:
        before, said = first.setdefault(own.id, (i, own))
        if before != i:
            other = "with the same answers" if said.answers == own.answers else "with other answers"
            what = f"stands twice, first as {rows.name}[{before}] {other}; right: one annotation a question"
            rows.wrong(i, {rows.label: own.id}, what)


def _same_images(rows: Rows, given: Sequence[tuple[int, Answers]], questions: Mapping[Id, Question]) -> None:
    for i, own in given:
        asked = questions.get(own.id)
        if asked is not None and own.image_id is not None and own.image_id != asked.image_id:
            of, at = shown(own.image_id), shown(asked.image_id)
            rows.wrong(i, {rows.label: own.id}, f"is of image {of}, its question of image {at}; right: the same image")


# ---- what a model said


def prediction_rows(path: Path, found: Sequence[Any], column: str, text: str, mistakes: Mistakes) -> dict[Id, str]:
    """Predictions as a list of objects: id -> text. column, text: the fields that hold them."""
    rows = Rows(path, "predictions", column, mistakes)
    said = rows.typed(found, {column: fields.ids, text: fields.texts})
    _distinct(rows, [(i, own) for i, own, _ in said], "one prediction each")
    return {own: words for _, own, words in said}


def own_predictions(path: Path, columns: Mapping[str, Any], mistakes: Mistakes) -> dict[str, dict[Id, str]]:
    """Predictions as a file of `predictions/` has them, column by column. By question id, and by image id where both are
    the same, as of captions. Raises UserError where the columns do not belong together."""
    taken = [columns[name] for name in ("id", "image_id", "text")]
    if not all(isinstance(c, list) for c in taken) or len({len(c) for c in taken}) != 1 or not taken[0]:
        raise UserError(
            f"{path}: the columns id, image_id and text are no lists of one length; right: the file as written"
        )
    records = [{"id": i, "image_id": image, "text": words} for i, image, words in zip(*taken, strict=True)]
    said = prediction_rows(path, records, "id", "text", mistakes)
    return {"question_id": said, **({"image_id": said} if taken[0] == taken[1] else {})}


def _distinct(rows: Rows, ids: Sequence[tuple[int, Id]], right: str) -> None:
    rows.once(ids, right)
    rows.one_kind(ids)
