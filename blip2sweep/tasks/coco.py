"""COCO captions: the official `captions_<split>.json`, and the Karpathy splits of `dataset_coco.json`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from blip2sweep.errors import UserError, nearest
from blip2sweep.rows import Id, Image, Mistakes, caption_rows, image_rows, list_of, read_json, sentence_rows
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

KARPATHY = "karpathy_"
KARPATHY_SPLITS = ("train", "restval", "val", "test")
KINDS: tuple[str, ...] = ("caption",)
# The published study's images (its first 1000 of val2017): BLIP-2 saw most of them in pre-training.
NOTES = {("val2017", 1000): "783 of these 1000 images are in the Karpathy train split: seen in pre-training"}


def read(
    root: Path, split: str, limit: int | None, annotations: object = None, images: object = None
) -> tuple[list[Sample], list[str]]:
    """The samples in file order, and notes.

    split: `karpathy_test` and its like, or that of a captions file (`val2017`). annotations: a file in place of the
    official one. images: the folder of the images in `root`.
    """
    reader, path = _karpathy if split.startswith(KARPATHY) else _captions, None
    if annotations is not None:
        (path,) = annotation_files(root, annotations, split)
    folder = None if images is None else inside(root, images, "task.images")
    samples, where, origin = reader(root, split, limit, path, folder)
    check_images(samples, root, where, origin)
    note = NOTES.get((split, len(samples)))
    return samples, [note] if note else []


def _captions(
    root: Path, split: str, limit: int | None, path: Path | None, folder: str | None
) -> tuple[list[Sample], Path, str]:
    path = path or root / "annotations" / f"captions_{split}.json"
    if not path.is_file():
        raise UserError(_no_split(path, split))
    right, mistakes = official("coco"), Mistakes()
    data = read_json(path, right)
    images = image_rows(path, list_of(data, "images", path, right), mistakes)
    captions = caption_rows(path, list_of(data, "annotations", path, right), mistakes, images)
    if not mistakes.count:
        _captioned(path, images, captions, mistakes)
    mistakes.tell()
    chosen = limited([(image, captions[image.id]) for image in images], limit)
    return _samples(root, path, split if folder is None else folder, chosen), path, "coco"


def _captioned(path: Path, images: Sequence[Image], captions: dict[Id, list[str]], mistakes: Mistakes) -> None:
    for i, image in enumerate(images):
        if image.id not in captions:
            mistakes.add(
                path, f"images[{i}] (id {shown(image.id)})", "has no caption; right: an annotation for every image"
            )


def _no_split(path: Path, split: str) -> str:
    there = sorted(p.stem.removeprefix("captions_") for p in path.parent.glob("captions_*.json"))
    known = [*there, *(KARPATHY + s for s in KARPATHY_SPLITS)]
    return f"task.split={split}: no annotation file {path}; {nearest(split, known)}; official files: {ORIGIN['coco']}"


def _karpathy(
    root: Path, split: str, limit: int | None, given: Path | None, folder: str | None
) -> tuple[list[Sample], Path, str]:
    wanted = split.removeprefix(KARPATHY)
    if wanted not in KARPATHY_SPLITS:
        raise UserError(f"task.split={split}: unknown split; {nearest(split, [KARPATHY + s for s in KARPATHY_SPLITS])}")
    path = given or root / "annotations" / "dataset_coco.json"
    if not path.is_file() and (root / path.name).is_file():
        path = root / path.name
    right, mistakes = official("karpathy"), Mistakes()
    images = sentence_rows(path, list_of(read_json(path, right), "images", path, right), wanted, mistakes)
    mistakes.tell()
    if not images:
        raise UserError(f"task.split={split}: no image of {path} is in it; right: {right}")
    return _samples(root, path, folder or "", limited(images, limit)), path, "karpathy"


def _samples(root: Path, path: Path, folder: str, found: Iterable[tuple[Image, list[str]]]) -> list[Sample]:
    return [
        Sample(image.id, image.id, image_path(root, folder, image.name, path), None, tuple(captions))
        for image, captions in found
    ]
