"""Pictures of different shapes, and a task's folder of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image


def pictures(n: int = 3, seed: int = 0) -> list[Image.Image]:
    """Pictures of different shapes."""
    rng = np.random.default_rng(seed)
    shapes = [(48, 64), (64, 43), (40, 40), (33, 80)]
    return [Image.fromarray(rng.integers(0, 255, (*shapes[i % 4], 3), dtype=np.uint8)) for i in range(n)]


def scenes(folder: Path, n: int = 10) -> Path:
    """A task's folder of captions whose pictures have different shapes, for evaluation and for calibration."""
    (folder / "annotations").mkdir(parents=True)
    for split, first in (("val2014", 1), ("train2014", 101)):
        (folder / split).mkdir()
        ids = range(first, first + n)
        names = {i: f"COCO_{split}_{i:012d}.png" for i in ids}
        for i, image in zip(ids, pictures(n, seed=first), strict=True):
            image.save(folder / split / names[i])
        said = {
            "images": [{"id": i, "file_name": names[i]} for i in ids],
            "annotations": [{"id": i, "image_id": i, "caption": f"picture {i} " + "of it " * (i % 3)} for i in ids],
        }
        (folder / "annotations" / f"captions_{split}.json").write_text(json.dumps(said))
    return folder
