"""Karpathy's form of caption data sets, one `dataset_NAME.json` with all splits: COCO, Flickr8k, Flickr30k, RSICD and others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blip2sweep.errors import UserError, nearest
from blip2sweep.rows import Captioned, Mistakes, list_of, read_json, sentence_rows
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

PREFIX = "karpathy_"
KINDS: tuple[str, ...] = ("caption", "retrieval")
ALL_SPLITS = True
# Where the images are from, where it is another place than that of the captions.
IMAGES = {"dataset_coco.json": "coco", "dataset_flickr30k.json": "shannon.cs.illinois.edu/DenotationGraph"}
FILES = {"dataset_rsicd.json": "github.com/201528014227051/RSICD_optimal"}


def read(
    root: Path, split: str, limit: int | None, annotations: object = None, images: object = None
) -> tuple[list[Sample], list[str]]:
    """The samples of a split in file order; no notes.

    split: as the file names it, also with `karpathy_` before it. annotations: the file's name, needed where the folder has
    several. images: the folder of the images; by default the one that the file names, else the data folder itself.
    Captions that are copies of others stay.
    """
    path = _only(root) if annotations is None else annotation_files(root, annotations, split)[0]
    return from_file(path, root, split, limit, images), []


def from_file(path: Path, root: Path, split: str, limit: int | None, images: object) -> list[Sample]:
    """The samples of a split of one Karpathy file. Raises UserError with a line a mistake."""
    rows = _rows(path)
    wanted = split.removeprefix(PREFIX)
    chosen = [row for row in rows if row.split == wanted]
    if not chosen:
        hint = nearest(wanted, sorted({row.split for row in rows}))
        raise UserError(f"task.split={split}: no image of {path} is in it; {hint}")
    samples = _samples(root, path, limited(chosen, limit), images)
    check_images(samples, root, path, IMAGES.get(path.name, _origin(path.name)))
    return samples


def _rows(path: Path) -> list[Captioned]:
    right, mistakes = official(_origin(path.name)), Mistakes()
    objects = list_of(read_json(path, right), "images", path, right)
    if not any(type(row) is dict and "sentences" in row for row in objects):
        raise UserError(f"{path}: no image has 'sentences', so this is no Karpathy file; right: {right}")
    rows = sentence_rows(path, objects, mistakes)
    mistakes.tell()
    return rows


def _samples(root: Path, path: Path, rows: Sequence[Captioned], images: object) -> list[Sample]:
    inner = {folder: _folder(root, images, folder or "") for folder in {row.folder for row in rows}}
    return [
        Sample(row.id, row.id, image_path(root, inner[row.folder], row.name, path), None, tuple(row.captions))
        for row in rows
    ]


def _folder(root: Path, images: object, own: str) -> str:
    """The folder of images in `root`. own: the one that the file names, which is looked for below `images`."""
    if images is None:
        return own
    given = inside(root, images, "task.images")
    return f"{given}/{own}" if own and (root / given / own).is_dir() else given


def _only(root: Path) -> Path:
    """The only Karpathy file of a data folder."""
    found = sorted(path for folder in (root, root / "annotations") for path in folder.glob("dataset_*.json"))
    if len(found) != 1:
        there = f"{', '.join(path.name for path in found)}" if found else "none"
        right = f"task.annotations=NAME; official files: {ORIGIN['karpathy']}"
        raise UserError(f"task.data_dir={root}: one file dataset_*.json is wanted, there is {there}; right: {right}")
    return found[0]


def _origin(name: str) -> str:
    return FILES.get(name, "karpathy")
