"""Flickr30k: `dataset_flickr30k.json` with Karpathy's splits, and `flickr30k-images/`. No `filepath`, no `cocoid`."""

from __future__ import annotations

from pathlib import Path

from scripts.miniature_sets._karpathy import Row, split_pictures, write_set
from scripts.miniature_sets._pictures import pictures


def write(folder: Path) -> None:
    found = pictures("flickr30k", 32)
    write_set(folder, "flickr30k", split_pictures(found, train=16, val=4, test=12), _image)


def _image(i: int, split: str) -> tuple[str, Row]:
    return f"flickr30k-images/{1000092795 + 97 * i}.jpg", {}
