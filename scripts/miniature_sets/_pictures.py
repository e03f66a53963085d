"""Pictures of generated scenes: what the embedded models were trained on, so that their scores are not all zero."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from blip2sweep.tasks.scenes import EASY, JPEG_QUALITY, Thing, captions, render, scene


class Picture(NamedTuple):
    """things: what is on it, in reading order; captions: five; pixels: uint8 RGB, (48, 48, 3)."""

    things: list[Thing]
    captions: list[str]
    pixels: np.ndarray

    def save(self, path: Path) -> None:
        """Write a JPEG or, by its suffix, a PNG; its folder is made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.pixels).save(path, quality=JPEG_QUALITY, subsampling=0)  # PNG has neither setting


def pictures(name: str, n: int) -> list[Picture]:
    """n pictures, the same for the same name at every call: `pictures("nocaps", 12)`."""
    rng, nrng = random.Random(name), np.random.default_rng(list(name.encode()))
    found = []
    for _ in range(n):
        things = scene(rng)
        found.append(Picture(things, captions(things, rng), render(things, nrng, EASY)))
    return found


def write_json(path: Path, content: object) -> None:
    """Write a value as compact JSON; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n")


def write_json_lines(path: Path, rows: Sequence[object]) -> None:
    """Write one JSON value a line; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
