"""The rows of GQA's files: objects of questions by their id, and of the answers that are valid and plausible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from blip2sweep.errors import UserError
from blip2sweep.rows import fields
from blip2sweep.rows.fields import Id, Wrong, each_value, shown
from blip2sweep.rows.mistakes import Mistakes
from blip2sweep.rows.row_list import Field, RowList

Step = Mapping[str, object]  # operation, argument
LABEL = "questionId"  # as in the files of predictions; in this file it is the key


class Types(NamedTuple):
    structural: str
    semantic: str
    detailed: str


class GqaQuestion(NamedTuple):
    """group: of questions with one distribution of answers. entailed: ids. program: the steps, None where not said."""

    id: Id
    image_id: Id
    question: str
    answer: str
    balanced: bool
    types: Types
    group: str | None
    entailed: tuple[Id, ...]
    program: Sequence[Step] | None


class GqaChoices(NamedTuple):
    valid: tuple[str, ...]
    plausible: tuple[str, ...]


def gqa_rows(path: Path, data: object, right: str, mistakes: Mistakes) -> list[GqaQuestion]:
    """A questions file, {question id: question}, in file order. Raises UserError where it is none, or has no answers."""
    objects = _objects(path, data, right)
    for name, what in (("imageId", "no question in it has an imageId"), ("answer", "no question in it has an answer")):
        if not any(type(row) is dict and name in row for row in objects):
            raise UserError(f"{path}: {what}; right: {right}")
    rows = RowList(path, "questions", LABEL, mistakes)
    asked = rows.typed(
        objects, Field(LABEL, fields.ids), Field("imageId", fields.ids), Field("question", fields.questions),
        Field("answer", fields.texts), Field("isBalanced", each_value(_flag)),
    )  # fmt: skip
    told = rows.typed(
        [row for row in objects if type(row) is dict], Field("types", each_value(_types)),
        Field("groups", each_value(_group), needed=False), Field("entailed", each_value(_entailed), needed=False),
        Field("semantic", each_value(_program), needed=False),
    )  # fmt: skip
    RowList(path, "questions", "imageId", mistakes).check_one_kind([(i, image) for i, _, image, *_ in asked])
    return [
        GqaQuestion(*own[1:], types, group, entailed or (), program)
        for own, (_, types, group, entailed, program) in zip(asked, told, strict=False)
    ]


def gqa_choices(path: Path, data: object, right: str, mistakes: Mistakes) -> dict[Id, GqaChoices]:
    """A choices file, {question id: {"valid", "plausible"}}."""
    rows = RowList(path, "choices", LABEL, mistakes)
    listed = rows.typed(
        _objects(path, data, right),
        Field(LABEL, fields.ids), Field("valid", each_value(_texts)), Field("plausible", each_value(_texts)),
    )  # fmt: skip
    return {own: GqaChoices(valid, plausible) for _, own, valid, plausible in listed}


def _objects(path: Path, data: object, right: str) -> list[object]:
    """The values of an object with their key in each. Raises UserError where it is no object, or empty."""
    if type(data) is not dict or not data:
        what = "an empty object" if data == {} else shown(data)
        raise UserError(f"{path}: holds {what}; right: {right}")
    return [{LABEL: key, **row} if type(row) is dict else row for key, row in data.items()]


# ---- what a field may hold


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise Wrong(f"is {shown(value)}; right: true or false")
    return value


def _types(value: object) -> Types:
    if type(value) is not dict or not {"structural", "semantic"} <= value.keys():
        raise Wrong(f"is {shown(value)}; right: an object with structural and semantic, such as 'query' and 'attr'")
    return Types(*(fields.text(value.get(name, "")) for name in Types._fields))


def _group(value: object) -> str | None:
    if value is not None and type(value) is not dict:
        raise Wrong(f"is {shown(value)}; right: an object with global, a text or null")
    found = cast("dict[str, object]", value or {}).get("global")
    return None if found is None else fields.text(found)


def _entailed(value: object) -> tuple[Id, ...]:
    if value is not None and type(value) is not list:
        raise Wrong(f"is {shown(value)}; right: a list of question ids")
    return tuple(map(fields.identifier, cast("list[object]", value or [])))


def _program(value: object) -> Sequence[Step] | None:
    steps = value if type(value) is list else []
    if value is not None and (
        steps is not value or not all(type(s) is dict and {"operation", "argument"} <= s.keys() for s in steps)
    ):
        raise Wrong(f"is {shown(value)}; right: a list of objects with operation and argument")
    return None if value is None else cast("list[Step]", steps)


def _texts(value: object) -> tuple[str, ...]:
    if type(value) is not list:
        raise Wrong(f"is {shown(value)}; right: a list of texts")
    return tuple(map(fields.text, value))
