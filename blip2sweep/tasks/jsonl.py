"""Samples of your own: JSON Lines, one object a line, for most kinds of task. docs/your_data.md says how to write them.

    {"image": "cat.jpg", "question": "What is on the sofa?", "answers": ["cat", "a cat"]}

`task.kind` says what is asked and how it is scored, and so which fields a line needs. A line has no more than one of the
names that mean the same, and the file uses one `id` a line or none: the number of the line is the id then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from blip2sweep.errors import UserError, nearest
from blip2sweep.rows import Id, Mistakes, fields
from blip2sweep.rows.fields import Wrong, each_value, shown
from blip2sweep.rows.lines import LineList, read_lines
from blip2sweep.rows.row_list import Field, Row
from blip2sweep.tasks.sample import Sample, annotation_files, check_images, image_path, inside, limited

RIGHT = 'JSON Lines, such as {"image": "cat.jpg", "question": "What is it?", "answers": ["cat"]} on each line'
QUESTION = ("question", "prompt")
REFERENCES = ("references", "answers", "captions", "answer", "caption")


Said = tuple[str, ...] | int  # texts, or the number of a choice


class Needs(NamedTuple):
    """What the lines of a kind have. references: what their field may hold; main: the metric of a table about them.

    unscored: whether a file may have no references at all. It is answered and not scored. lone: whether a picture stands
    on one line alone, because each line's picture competes with all others.
    """

    question: bool
    choices: bool
    references: Callable[[object], Said]
    main: str
    unscored: bool = False
    lone: bool = False


def _texts(value: object) -> tuple[str, ...]:
    """A text, or a list as `fields.answers` takes it."""
    if isinstance(value, str):
        return (fields.text(value),)
    if not isinstance(value, list) or not value:
        told = "an empty list" if value == [] else shown(value)
        raise Wrong(f"is {told}; right: a text, or a list of one or more texts")
    return fields.answers(value)


def _captions(value: object) -> tuple[str, ...]:
    found = tuple(map(fields.caption, _texts(value)))
    if not any(text.strip() for text in found):
        raise Wrong("has no word; right: a caption that does")
    return found


def _one(value: object) -> tuple[str, ...]:
    found = _texts(value)
    if len(found) != 1:
        raise Wrong(f"has {len(found)} texts; right: one, which is compared letter by letter")
    return found


def _yes_no(value: object) -> tuple[str, ...]:
    found = _texts(value)
    if found not in (("yes",), ("no",)):
        raise Wrong(f"is {shown(found[0])}; right: yes or no")
    return found


def _choice(value: object) -> Said:
    """The text of the right choice, or its number."""
    return value if type(value) is int else _one(value)


OF_KIND: Mapping[str, Needs] = {
    "caption": Needs(False, False, _captions, "cider"),
    "choice": Needs(True, True, _choice, "option_accuracy"),
    "gqa": Needs(True, False, _one, "gqa_accuracy"),
    "letter": Needs(True, True, _choice, "option_accuracy"),
    "retrieval": Needs(False, False, _captions, "recall_mean", lone=True),
    "vqa": Needs(True, False, _texts, "vqa_accuracy", unscored=True),
    "yes_no": Needs(True, False, _yes_no, "yes_no_accuracy"),
}
KINDS: tuple[str, ...] = tuple(OF_KIND)
MAIN_METRIC: Mapping[str, str] = {kind: needs.main for kind, needs in OF_KIND.items()}


def read(
    root: Path, split: str, limit: int | None, kind: str, annotations: object = None, images: object = None
) -> tuple[list[Sample], list[str]]:
    """The samples in file order, the first `limit` of them; no notes.

    annotations: the file, `<split>.jsonl` by default. images: the folder that the image names start in, `root` by default.
    """
    if annotations is None:
        path = root / f"{split}.jsonl"
        there = sorted(p.stem for p in root.glob("*.jsonl"))
        if not path.is_file():
            hint = f"; {nearest(split, there)}" if there else ""
            raise UserError(f"task.split={split}: no file {path}{hint}; right: task.annotations=FILE.jsonl in {root}")
    else:
        (path,) = annotation_files(root, annotations, split)
    folder = "" if images is None else inside(root, images, "task.images")
    mistakes = Mistakes()
    samples = limited(_samples(root, folder, path, OF_KIND[kind], mistakes), limit)
    check_images(samples, root, path, "task.images" if folder else "task.data_dir, or from task.images=FOLDER in it")
    return samples, []


def _samples(root: Path, folder: str, path: Path, needs: Needs, mistakes: Mistakes) -> list[Sample]:
    lines, objects = read_lines(path, RIGHT, mistakes)
    rows = LineList(path, "lines", "id", mistakes, lines)
    asked, answered = _name(objects, QUESTION), _name(objects, REFERENCES)
    scored = not needs.unscored or any(name in row for row in objects for name in REFERENCES)
    objects = [_renamed(rows, i, row, (QUESTION, asked), (REFERENCES, answered)) for i, row in enumerate(objects)]
    main = rows.typed(
        objects, Field("id", fields.ids_or_none, False), Field("image", fields.file_names),
        Field(asked, fields.questions, needs.question), Field(answered, each_value(needs.references if scored else _unread), scored),
        Field("choices", each_value(_choices if needs.choices else _unread), needs.choices),
    )  # fmt: skip
    more = rows.typed(
        objects, Field("answer_type", fields.answer_types, False), Field("hint", each_value(_hint), False)
    )
    _check_ids(rows, [(i, own) for i, own, *_ in main])
    if needs.lone:
        _check_images_once(rows, [(i, name) for i, _, name, *_ in main])
    right = {i: _right(rows, i, answered, choices, said) for i, _, _, _, said, choices in main if needs.choices}
    mistakes.tell()
    return [
        Sample(
            id=lines[i] if own is None else own, image_id=name, image=image_path(root, folder, name, path),
            question=question, answer_type=answer_type, choices=choices or (), details=_details(right.get(i), hint),
            references=(choices[right[i]],) if needs.choices else said if isinstance(said, tuple) else (),
        )
        for (i, own, name, question, said, choices), (_, answer_type, hint) in zip(main, more, strict=True)
    ]  # fmt: skip


def _details(right: int | None, hint: str | None) -> dict[str, object]:
    return {name: value for name, value in (("answer", right), ("hint", hint)) if value is not None}


# ---- names that mean the same


def _name(objects: Sequence[Row], names: Sequence[str]) -> str:
    """The name that the first line with one of them uses."""
    return next((name for row in objects for name in names if name in row), names[0])


def _renamed(rows: LineList, i: int, row: Row, *same: tuple[Sequence[str], str]) -> Row:
    """A line with the names that the file uses. Two names that mean the same are noted."""
    found = dict(row)
    for names, used in same:
        given = [name for name in names if name in row]
        if len(given) > 1:
            rows.wrong(i, row, f"has '{given[0]}' and '{given[1]}', which mean the same; right: one of them")
        elif given:
            found[used] = found.pop(given[0])
    return found


# ---- what a field may hold


def _unread(value: object) -> tuple[str, ...]:
    return ()


def _choices(value: object) -> tuple[str, ...]:
    found = fields.choices(value)
    if len({*found}) < len(found):
        raise Wrong("has a text twice; right: each choice once")
    return found


def _hint(value: object) -> str | None:
    return None if value is None else fields.text(value)


def _check_ids(rows: LineList, ids: Sequence[tuple[int, Id | None]]) -> None:
    given = [(i, own) for i, own in ids if own is not None]
    if given and len(given) < len(ids):
        first = next(i for i, own in ids if own is None)
        rows.wrong(first, {}, "has no 'id', and other lines have one; right: an id on every line, or on none")
    rows.check_unique(given, "every id once")
    rows.check_one_kind(given)


def _check_images_once(rows: LineList, images: Sequence[tuple[int, str]]) -> None:
    first = dict[str, int]()
    for i, name in images:
        if first.setdefault(name, i) != i:
            there = rows.place(first[name])
            rows.wrong(i, {}, f"'image' is {shown(name)}, as on {there}; right: all captions of a picture on one line")


def _right(rows: LineList, i: int, name: str, choices: Sequence[str], said: Said) -> int:
    """The number of the right choice. A number is that; a text is one of the choices, else such a number in quotes."""
    own = said if isinstance(said, int) else said[0]
    if own in choices:
        return choices.index(str(own))
    numbers: dict[int | str, int] = {key: n for n in range(len(choices)) for key in (n, str(n))}
    if own in numbers:
        return numbers[own]
    what = f"'{name}' is {shown(own)}; right: one of the choices, or its number from 0 to {len(choices) - 1}"
    rows.wrong(i, {}, what)
    return 0
