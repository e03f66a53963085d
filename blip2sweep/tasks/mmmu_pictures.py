"""The pictures inside of MMMU's parquet files. Only those of chosen rows are read, some rows at a time, so that no
process holds the pictures of a file.

A picture is written to a file once, named by the sha256 of its bytes: into the data folder, or where that cannot be
written into the user's cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from blip2sweep.errors import UserError
from blip2sweep.files import write_atomic
from blip2sweep.tasks.sample import image_path, user_pictures

FIRST = "image_1"
BATCH = 16  # rows whose pictures are in memory at once
_SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"RIFF": ".webp"}


class Picture(NamedTuple):
    """The first picture of a row. name: of its file; size: in bytes, 0 where the row has no picture."""

    path: Path
    row: int
    name: str
    size: int


def contents(path: Path, wanted: Mapping[int, Collection[str]], right: str) -> Iterator[tuple[int, dict[str, bytes]]]:
    """(row, {column: bytes}) of the wanted rows of a file in their order; no bytes where a row has none.

    wanted: {row: columns}. Raises UserError for a file that cannot be read.
    """
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        columns = sorted({c for names in wanted.values() for c in names} & {*file.schema_arrow.names})
        start = 0
        for batch in file.iter_batches(BATCH, columns=columns):
            chosen = [i for i in range(start, start + len(batch)) if i in wanted]
            rows = batch.take([i - start for i in chosen]).to_pylist() if chosen else []
            yield from ((i, {c: _bytes(row.get(c)) for c in wanted[i]}) for i, row in zip(chosen, rows, strict=True))
            start += len(batch)
            if start > max(wanted):
                return
    except Exception as error:  # it raises many kinds, all of them about this file
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read: {told}; right: {right}") from error


def _bytes(value: object) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    return content if isinstance(content, bytes) else b""


def file_name(content: bytes) -> str:
    suffix = next((end for start, end in _SUFFIXES.items() if content.startswith(start)), ".img")
    return hashlib.sha256(content).hexdigest()[:32] + suffix


def written(root: Path, folder: str, pictures: Sequence[Picture], right: str) -> list[Path]:
    """The file of each picture, written unless it is there. One without bytes is a missing file.

    folder: in the data folder `root`, and in the user's for pictures. Raises UserError where neither can be written.
    """
    homes = [home for home in (root, user_pictures()) if home]
    open_homes = list(homes)
    lacking: dict[Path, dict[int, Picture]] = {}
    for one in pictures:
        if one.size and _there(homes, folder, one) is None:
            lacking.setdefault(one.path, {})[one.row] = one
    for path, rows in lacking.items():
        for i, found in contents(path, dict.fromkeys(rows, (FIRST,)), right):
            _write(open_homes, folder, rows[i], found[FIRST])
    return [_there(homes, folder, one) or image_path(root, folder, one.name, one.path) for one in pictures]


def _there(homes: Sequence[Path], folder: str, one: Picture) -> Path | None:
    """Its file. The name is the content, so that what is there is the same."""
    places = [image_path(home, folder, one.name, one.path) for home in homes]
    return next((p for p in places if p.is_file() and p.stat().st_size == one.size), None)


def _write(homes: list[Path], folder: str, one: Picture, content: bytes) -> None:
    """Write a picture into the first folder that takes it. Those that do not are not tried again."""
    while True:
        image = image_path(homes[0], folder, one.name, one.path)
        try:
            return write_atomic(image, content)
        except UserError as error:
            if len(homes) > 1:
                del homes[0]
                continue
            told = (
                "the pictures inside the parquet files can be written neither into the data folder nor into the user's"
            )
            right = "a data folder that can be written once, or BLIP2SWEEP_CACHE_DIR=FOLDER, one of your own"
            raise UserError(f"{image.parent}: {told}; right: {right}") from error
