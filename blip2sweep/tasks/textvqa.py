"""TextVQA: `TextVQA_0.5.1_SPLIT.json`, and the words in the images from `TextVQA_Rosetta_OCR_v0.2_SPLIT.json`.

`task.ocr_tokens=true` reads the words: from the questions' own rows where they have `ocr_tokens`, else from that file.
They stand in the prompt behind the question.
"""

from __future__ import annotations

from pathlib import Path

from blip2sweep.errors import UserError, nearest
from blip2sweep.rows import Mistakes, list_of, read_json
from blip2sweep.rows.asked import Asked, ocr_rows, textvqa_rows
from blip2sweep.rows.fields import shown
from blip2sweep.tasks.sample import (
    NO_DETAILS,
    ORIGIN,
    Sample,
    annotation_files,
    check_images,
    image_path,
    inside,
    limited,
    official,
)
from blip2sweep.tasks.vqav2 import UNSCORED, image_name

KINDS: tuple[str, ...] = ("vqa",)
OPTIONS: tuple[str, ...] = ("ocr_tokens",)
NAME, OCR = "TextVQA_0.5.1_{}.json", "TextVQA_Rosetta_OCR_v0.2_{}.json"
FOLDERS = {"test": "test_images"}  # the images of train and val lie together
TRAIN = "train_images"


def read(
    root: Path,
    split: str,
    limit: int | None,
    annotations: object = None,
    images: object = None,
    ocr_tokens: object = None,
) -> tuple[list[Sample], list[str]]:
    """Questions in file order, the first `limit` of them, with people's answers. Those of a test split, and of a file that
    `annotations` names, may have none.

    ocr_tokens: true reads the words in the images too.
    """
    if ocr_tokens not in (None, True, False):
        raise UserError(f"task.ocr_tokens={ocr_tokens}: right: true or false")
    folder = FOLDERS.get(split, TRAIN) if images is None else inside(root, images, "task.images")
    path = annotation_files(root, annotations, split)[0] if annotations is not None else found(root, NAME, split)
    unanswered = annotations is not None or split.startswith("test")
    asked = limited(_read(path, root, split, bool(ocr_tokens), unanswered), limit)
    samples = [_sample(a, image_path(root, folder, image_name("", a.image_id), path)) for a in asked]
    check_images(samples, root, path, "textvqa")
    return samples, [] if samples[0].references else [UNSCORED]


def found(root: Path, name: str, split: str) -> Path:
    """An official file, in the data folder or its `annotations/`. Raises UserError where there is none."""
    places = [root / name.format(split), root / "annotations" / name.format(split)]
    for path in places:
        if path.is_file():
            return path
    first, last = name.split("{}")
    there = [p.name.removeprefix(first).removesuffix(last) for at in places for p in at.parent.glob(name.format("*"))]
    raise UserError(
        f"task.split={split}: no file {places[0]}; {nearest(split, sorted(there))}; official files: {ORIGIN['textvqa']}"
    )


def _read(path: Path, root: Path, split: str, with_words: bool, unanswered: bool) -> list[Asked]:
    """The questions, each with its words where they are wanted, checked together."""
    right, mistakes = official("textvqa"), Mistakes()
    asked = textvqa_rows(path, list_of(read_json(path, right), "data", path, right), mistakes, unanswered)
    if not with_words:
        asked = [a._replace(tokens=None) for a in asked]
    elif any(a.tokens is None for a in asked):
        read_from = found(root, OCR, split)
        words = ocr_rows(read_from, list_of(read_json(read_from, right), "data", read_from, right), mistakes)
        lacking = [i for i in dict.fromkeys(a.image_id for a in asked) if i not in words]
        if lacking and not mistakes.count:
            what = f"no image_id {shown(lacking[0])} ({len(lacking)} images of {path.name} lack their words)"
            mistakes.add(read_from, "data", f"{what}; right: the file of this split")
        asked = [a._replace(tokens=words.get(a.image_id)) for a in asked]
    mistakes.tell()
    return asked


def _sample(asked: Asked, image: Path) -> Sample:
    details = NO_DETAILS if asked.tokens is None else {"ocr_tokens": list(asked.tokens)}
    return Sample(asked.id, asked.image_id, image, asked.question, asked.answers or (), details=details)
