"""VizWiz VQA: `val.json`, a list of objects with the image's name, the question, and ten answers; images in `val/`.

A question is named by its image. `test.json` has no answers.
"""

from __future__ import annotations

from pathlib import Path

from blip2sweep.errors import UserError, nearest
from blip2sweep.rows import Mistakes, read_json
from blip2sweep.rows.asked import Asked, vizwiz_rows
from blip2sweep.rows.fields import shown
from blip2sweep.tasks.sample import (
    ORIGIN,
    Sample,
    annotation_files,
    check_images,
    image_path,
    inside,
    limited,
    official,
)
from blip2sweep.tasks.vqav2 import UNSCORED

KINDS: tuple[str, ...] = ("vqa",)
SPLITS = ("train", "val", "test")
PLACES = ("Annotations", "annotations", "")  # of the unpacked archive, or without its folder


def read(
    root: Path, split: str, limit: int | None, annotations: object = None, images: object = None
) -> tuple[list[Sample], list[str]]:
    """Questions in file order, the first `limit` of them, with people's answers. Those of a test split, and of a file that
    `annotations` names, may have none."""
    folder = split if images is None else inside(root, images, "task.images")
    path = annotation_files(root, annotations, split)[0] if annotations is not None else _found(root, split)
    asked = limited(_read(path, annotations is not None or split.startswith("test")), limit)
    samples = [_sample(a, image_path(root, folder, str(a.image_id), path)) for a in asked]
    check_images(samples, root, path, "vizwiz")
    return samples, [] if samples[0].references else [UNSCORED]


def _found(root: Path, split: str) -> Path:
    for place in PLACES:
        if (root / place / f"{split}.json").is_file():
            return root / place / f"{split}.json"
    missing = root / PLACES[0] / f"{split}.json"
    raise UserError(
        f"task.split={split}: no file {missing}; {nearest(split, SPLITS)}; official files: {ORIGIN['vizwiz']}"
    )


def _read(path: Path, unanswered: bool) -> list[Asked]:
    right, mistakes = official("vizwiz"), Mistakes()
    content = read_json(path, right)
    if type(content) is not list or not content:
        held = "an empty list" if content == [] else shown(content)
        raise UserError(f"{path}: holds {held}; right: a list of questions: {right}")
    asked = vizwiz_rows(path, content, mistakes, unanswered)
    mistakes.tell()
    return asked


def _sample(asked: Asked, image: Path) -> Sample:
    return Sample(asked.id, asked.image_id, image, asked.question, asked.answers or (), asked.answer_type)
