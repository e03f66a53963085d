"""RSICD: `dataset_rsicd.json` and `RSICD_images/`. Of many images the five sentences are copies of fewer."""

from __future__ import annotations

from pathlib import Path

from scripts.miniature_sets._karpathy import Row, split_pictures, write_set
from scripts.miniature_sets._pictures import Picture, pictures

SCENES = ("airport", "beach", "farmland", "port")


def write(folder: Path) -> None:
    found = [_copied(picture, i % 3) for i, picture in enumerate(pictures("rsicd", 32))]
    write_set(folder, "rsicd", split_pictures(found, train=16, val=4, test=12), _image)


def _copied(picture: Picture, copies: int) -> Picture:
    """The sentences as RSICD has them: lower case, a full stop after a space, the first one again `2 * copies` times."""
    own = [f"{text.lower().rstrip('. ')} ." for text in picture.captions]
    return picture._replace(captions=own[: 5 - 2 * copies] + own[:1] * (2 * copies))


def _image(i: int, split: str) -> tuple[str, Row]:
    return f"RSICD_images/{SCENES[i % len(SCENES)]}_{i + 1}.jpg", {}
