"""Karpathy's form of a caption data set: one `dataset_NAME.json` with all splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from scripts.miniature_sets._pictures import Picture, write_json

Row = dict[str, object]


def write_set(
    folder: Path,
    name: str,
    drawn: Iterable[tuple[str, Picture]],
    image: Callable[[int, str], tuple[str, Row]],
    annotations: str = "",
) -> None:
    """Write `folder/annotations/dataset_NAME.json` and the pictures it names.

    drawn: split and picture of each image. image: its path in the folder, and its own fields, from its number and split.
    """
    rows: list[Row] = []
    first = 0
    for i, (split, picture) in enumerate(drawn):
        path, own = image(i, split)
        picture.save(folder / path)
        rows.append(
            {**own, "filename": Path(path).name, "imgid": i, "split": split, **sentences(picture.captions, i, first)}
        )
        first += len(picture.captions)
    write_json(folder / annotations / f"dataset_{name}.json", {"images": rows, "dataset": name})


def sentences(captions: Sequence[str], imgid: int, first: int) -> Row:
    """`sentids` and `sentences` of an image. first: the id of its first sentence."""
    ids = list(range(first, first + len(captions)))
    rows = [
        {"tokens": re.findall(r"[a-z0-9]+", raw.lower()), "raw": raw, "imgid": imgid, "sentid": i}
        for i, raw in zip(ids, captions, strict=True)
    ]
    return {"sentids": ids, "sentences": rows}


def split_pictures(found: Sequence[Picture], **counts: int) -> Iterable[tuple[str, Picture]]:
    """(split, picture): the first `train` of them, and so on, in the order that the splits are given."""
    splits = [split for split, n in counts.items() for _ in range(n)]
    return zip(splits, found, strict=True)
