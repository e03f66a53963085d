"""Flickr30k for retrieval: the files of `flickr30k_caption`, with enough pictures that some are hard to find."""

from __future__ import annotations

from pathlib import Path

from scripts.miniature_sets._karpathy import split_pictures, write_set
from scripts.miniature_sets._pictures import pictures
from scripts.miniature_sets.flickr30k_caption import _image as image


def write(folder: Path) -> None:
    found = pictures("flickr30k_retrieval", 56)
    write_set(folder, "flickr30k", split_pictures(found, train=16, test=40), image)
