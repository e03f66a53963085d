"""Karpathy's form of caption data sets, one `dataset_NAME.json` with all splits: COCO, Flickr8k, Flickr30k, RSICD and others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blip2sweep.errors import UserError, nearest
from blip2sweep.rows import Captioned, Mistakes, list_of, read_json, sentence_rows
from blip2sweep.tasks.data_files import annotation_file, image_folder
from blip2sweep.tasks.sample import ORIGIN, Sample, check_images, image_path, limited, official

PREFIX = "karpathy_"
KINDS: tuple[str, ...] = ("caption",)
OPTIONS: tuple[str, ...] = ("annotations", "images")
# Where the images are from, where it is another place than that of the captions.
IMAGES = {"dataset_coco.json": "coco", "dataset_flickr30k.json": "shannon.cs.illinois.edu/DenotationGraph"}
FILES = {"dataset_rsicd.json": "github.com/201528014227051/RSICD_optimal"}


def read(
    root: Path, split: str, limit: int | None, annotations: str | None = None, images: str | None = None
) -> tuple[list[Sample], list[str]]:
    """The samples of a split in file order; no notes.

    split: as the file names it, also with `karpathy_` before it. annotations: the file's name, needed where the folder has
    several. images: the folder of the images; by default the one that the file names, else the data folder itself.
    Captions that are copies of others stay.
    """
    path = annotation_file(root, annotations, official(_origin(annotations))) if annotations else _only(root)
    return from_file(path, root, split, limit, images), []


def from_file(path: Path, root: Path, split: str, limit: int | None, images: str | None) -> list[Sample]:
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


def _samples(root: Path, path: Path, rows: Sequence[Captioned], images: str | None) -> list[Sample]:
    folders = {row.folder for row in rows}
    inner = {f: image_folder(root, images, f or "") if images else f or "" for f in folders}
    return [
        Sample(row.id, row.id, image_path(root, inner[row.folder], row.name, path), None, tuple(row.captions))
        for row in rows
    ]


def _only(root: Path) -> Path:
    """The only Karpathy file of a data folder."""
    found = sorted(path for folder in (root, root / "annotations") for path in folder.glob("dataset_*.json"))
    if len(found) != 1:
        there = f"{', '.join(path.name for path in found)}" if found else "none"
        right = f"task.annotations=NAME; official files: {ORIGIN['karpathy']}"
        raise UserError(f"task.data_dir={root}: one file dataset_*.json is wanted, there is {there}; right: {right}")
    return found[0]


def _origin(name: str) -> str:
    return FILES.get(Path(name).name, "karpathy")
