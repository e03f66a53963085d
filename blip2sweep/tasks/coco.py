"""COCO captions: the official `captions_<split>.json`, and the Karpathy splits of `dataset_coco.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from blip2sweep.errors import UserError, nearest
from blip2sweep.tasks.sample import ORIGIN, Sample, check_images, image_path, limited, read_json, rows

KARPATHY = "karpathy_"
KARPATHY_SPLITS = ("train", "restval", "val", "test")
# The published study's images (its first 1000 of val2017): BLIP-2 saw most of them in pre-training.
NOTES = {("val2017", 1000): "783 of these 1000 images are in the Karpathy train split: seen in pre-training"}


def read(root: Path, split: str, limit: int | None) -> tuple[list[Sample], list[str]]:
    """Samples in file order and notes. split: `karpathy_test` and its like, or that of a captions file (`val2017`)."""
    reader = _karpathy if split.startswith(KARPATHY) else _captions
    samples, where, origin = reader(root, split, limit)
    _check_ids(samples, where)
    check_images(samples, root, where, origin)
    note = NOTES.get((split, len(samples)))
    return samples, [note] if note else []


def _captions(root: Path, split: str, limit: int | None) -> tuple[list[Sample], Path, str]:
    path = root / "annotations" / f"captions_{split}.json"
    if not path.is_file():
        raise UserError(_no_split(path, split))
    data = read_json(path, "coco")
    images = limited(rows(data, "images", ("id", "file_name"), path, "coco"), limit)
    captions: dict[int, list[str]] = {}
    for row in rows(data, "annotations", ("image_id", "caption"), path, "coco"):
        captions.setdefault(row["image_id"], []).append(str(row["caption"]))
    found = ((row["id"], split, row["file_name"], captions.get(row["id"], ())) for row in images)
    return _samples(root, path, found), path, "coco"


def _no_split(path: Path, split: str) -> str:
    there = sorted(p.stem.removeprefix("captions_") for p in path.parent.glob("captions_*.json"))
    known = [*there, *(KARPATHY + s for s in KARPATHY_SPLITS)]
    return f"task.split={split}: no annotation file {path}; {nearest(split, known)}; official files: {ORIGIN['coco']}"


def _karpathy(root: Path, split: str, limit: int | None) -> tuple[list[Sample], Path, str]:
    wanted = split.removeprefix(KARPATHY)
    if wanted not in KARPATHY_SPLITS:
        raise UserError(f"task.split={split}: unknown split; {nearest(split, [KARPATHY + s for s in KARPATHY_SPLITS])}")
    path = root / "annotations" / "dataset_coco.json"
    if not path.is_file() and (root / path.name).is_file():
        path = root / path.name
    keys = ("filename", "filepath", "cocoid", "sentences", "split")
    images = rows(read_json(path, "karpathy"), "images", keys, path, "karpathy")
    chosen = limited([row for row in images if row["split"] == wanted], limit)
    if not chosen:
        raise UserError(
            f"task.split={split}: no image of {path} is in it; right: the official file, from {ORIGIN['karpathy']}"
        )
    found = ((row["cocoid"], row["filepath"], row["filename"], _raw(row, path)) for row in chosen)
    return _samples(root, path, found), path, "karpathy"


def _raw(row: Mapping[str, Any], path: Path) -> list[str]:
    try:
        return [str(sentence["raw"]) for sentence in row["sentences"]]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: a sentence of {row['filename']} has no 'raw'; right: the file of {ORIGIN['karpathy']}"
        ) from error


def _samples(root: Path, path: Path, found: Iterable[tuple[Any, str, str, Iterable[str]]]) -> list[Sample]:
    return [
        Sample(int(id_), int(id_), image_path(root, str(folder), str(name), path), None, tuple(captions))
        for id_, folder, name, captions in found
    ]


def _check_ids(samples: list[Sample], path: Path) -> None:
    if len({s.id for s in samples}) != len(samples):
        raise UserError(f"{path}: an image id occurs twice; right: the official file")
    bare = next((s.id for s in samples if not s.references), None)
    if bare is not None:
        raise UserError(f"{path}: image {bare} has no caption; right: an annotation for every image")
