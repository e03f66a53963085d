"""COCO captions: `dataset_coco.json` with Karpathy's splits, `captions_val2014.json`, and the pictures of 2014."""

from __future__ import annotations

from pathlib import Path

from scripts.miniature_sets._karpathy import Row, split_pictures, write_set
from scripts.miniature_sets._pictures import pictures, write_json

COUNTS = {"train": 16, "restval": 2, "val": 4, "test": 12}


def write(folder: Path) -> None:
    found = pictures("coco_caption", sum(COUNTS.values()))
    found[-1] = found[-1]._replace(captions=[*found[-1].captions, found[-1].captions[0]])  # a few of COCO's have six
    write_set(folder, "coco", split_pictures(found, **COUNTS), _image, "annotations")
    later = range(COUNTS["train"], len(found))  # all but Karpathy's train are of val2014
    images = [{"id": _id(i), "file_name": _name(i, "val2014"), "height": 48, "width": 48, "license": 1} for i in later]
    annotations = [
        {"image_id": _id(i), "id": 10 * _id(i) + k, "caption": text}
        for i in later
        for k, text in enumerate(found[i].captions)
    ]
    coco = {"info": {"description": "COCO 2014"}, "images": images, "licenses": [], "annotations": annotations}
    write_json(folder / "annotations" / "captions_val2014.json", coco)


def _image(i: int, split: str) -> tuple[str, Row]:
    folder = "train2014" if split == "train" else "val2014"
    return f"{folder}/{_name(i, folder)}", {"filepath": folder, "cocoid": _id(i)}


def _id(i: int) -> int:
    return 1000 + 7 * i


def _name(i: int, folder: str) -> str:
    return f"COCO_{folder}_{_id(i):012d}.jpg"
