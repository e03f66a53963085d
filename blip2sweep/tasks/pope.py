"""POPE: JSON lines of questions "Is there a … in the image?", three files of one set of COCO's pictures.

Each file numbers its questions anew. So the id of a sample has the file's name in front: `random-1`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from blip2sweep.errors import UserError, nearest
from blip2sweep.metrics.yes_no import CATEGORIES, LABELS
from blip2sweep.rows import Id, Mistakes, fields
from blip2sweep.rows.fields import Wrong, shown
from blip2sweep.rows.lines import LineList, read_lines
from blip2sweep.rows.row_list import Field
from blip2sweep.tasks.sample import Sample, annotation_files, check_images, image_path, inside, limited

KINDS: tuple[str, ...] = ("yes_no",)
ALL = "all"
FILE = "coco_pope_{}.json"
RIGHT = "the official file, from github.com/AoiDragon/POPE, output/coco"
_OF_COCO = re.compile(r"COCO_(\w+)_0*(\d+)\.jpg")


class Asked(NamedTuple):
    """A question of a file. name: of the picture's file."""

    id: Id
    name: str
    question: str
    label: str


def read(
    root: Path,
    split: str,
    limit: int | None,
    annotations: object = None,
    images: object = None,
) -> tuple[list[Sample], list[str]]:
    """The questions of a split in file order, the first `limit` of them; no notes.

    split: `random`, `popular` or `adversarial`; `all` has all three. annotations: a file for each of them. images: the
    folder of the pictures; by default that of COCO's split, as their names say.
    """
    chosen, mistakes = _paths(root, split, annotations), Mistakes()
    asked = {name: _rows(path, mistakes) for name, path in chosen.items()}
    mistakes.tell()
    found = limited([(name, one) for name, rows in asked.items() for one in rows], limit)
    numbers = _numbers([one.name for _, one in found])
    folder = None if images is None else inside(root, images, "task.images")
    samples = [_sample(root, chosen[name], name, one, numbers.get(one.name), folder) for name, one in found]
    for name, path in chosen.items():
        check_images([s for s in samples if s.details["category"] == name], root, path, "coco")
    return samples, []


def _paths(root: Path, split: str, annotations: object) -> dict[str, Path]:
    """{category: file} of a split."""
    if split not in (*CATEGORIES, ALL):
        raise UserError(f"task.split={split}: unknown split; {nearest(split, [*CATEGORIES, ALL])}")
    names = CATEGORIES if split == ALL else (split,)
    if annotations is not None:
        return dict(zip(names, annotation_files(root, annotations, split, len(names)), strict=True))
    places = [root / "annotations", root / "coco", root]
    there = next((p for p in places if any((p / FILE.format(n)).is_file() for n in names)), places[0])
    return {name: there / FILE.format(name) for name in names}


def _rows(path: Path, mistakes: Mistakes) -> list[Asked]:
    """The questions of a file; mistakes are noted. Raises UserError where it cannot be read or holds something else."""
    lines, objects = read_lines(path, RIGHT, mistakes)
    if objects and not {"text", "label"} & objects[0].keys():
        told = ", ".join(map(str, objects[0]))[:200] or "none"
        raise UserError(f"{path}: its first line has the fields {told}; right: {RIGHT}")
    rows = LineList(path, "lines", "question_id", mistakes, lines)
    found = rows.typed(
        objects,
        Field("question_id", fields.ids),
        Field("image", fields.file_names),
        Field("text", fields.questions),
        Field("label", _labels),
    )
    rows.check_unique([(i, own) for i, own, *_ in found], "every question once")
    return [Asked(own, name, question, label) for _, own, name, question, label in found]


def _labels(column: list[object]) -> list[str]:
    for value in column:
        if value not in LABELS:
            raise Wrong(f"is {shown(value)}; right: yes or no")
    return [str(value) for value in column]


def _numbers(names: Sequence[str]) -> dict[str, int]:
    """COCO's number of each picture; empty where a name is none of COCO's."""
    found = {name: _OF_COCO.fullmatch(name) for name in names}
    return {n: int(m[2]) for n, m in found.items() if m} if all(found.values()) else {}


def _sample(root: Path, path: Path, category: str, asked: Asked, number: int | None, folder: str | None) -> Sample:
    coco = _OF_COCO.fullmatch(asked.name)
    home = folder if folder is not None else coco[1] if coco else ""
    return Sample(
        id=f"{category}-{asked.id}",
        image_id=asked.name if number is None else number,
        image=image_path(root, home, asked.name, path),
        question=asked.question,
        references=(asked.label,),
        answer_type="yes/no",
        details={"category": category},
    )
