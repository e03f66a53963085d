"""COCO for retrieval: `dataset_coco.json` with Karpathy's splits; some pictures have six captions, and one seven."""

from __future__ import annotations

from pathlib import Path

from scripts.miniature_sets._karpathy import split_pictures, write_set
from scripts.miniature_sets._pictures import pictures
from scripts.miniature_sets.coco_caption import _image as image

COUNTS = {"train": 16, "test": 40}


def write(folder: Path) -> None:
    found = pictures("coco_retrieval", sum(COUNTS.values()))
    for i, more in ((-9, 1), (-2, 1), (-1, 2)):  # copies of captions: equal texts of one picture
        found[i] = found[i]._replace(captions=[*found[i].captions, *found[i].captions[:more]])
    write_set(folder, "coco", split_pictures(found, **COUNTS), image, "annotations")
