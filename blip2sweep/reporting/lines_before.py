"""Lines for the terminal that were made before. A sweep that is run again has the same ones, and what they say of pairs of
cells takes a quarter of a second: the statistics of the cells are read, and their intervals computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pandas as pd

from blip2sweep.cache import disk
from blip2sweep.reporting.drawn_before import rows_digest
from blip2sweep.results.predictions import stem
from blip2sweep.results.score_folders import known_variants, score_folder

STORE = "lines"  # of the user's stores
ROOMS = ("analysis", "console", "metrics", "models", "recipe", "reporting", "results", "rows")  # whose code makes them


def said_before(rows: pd.DataFrame, output_dir: Path, command: str, make: Callable[[], list[str]]) -> list[str]:
    """What `make` returns, or returned for the same rows, command and files of the same folder. Files belong to it because
    there are fewer lines, or none, while one is away or damaged."""
    store, digest = disk.of_user(STORE), rows_digest(rows)
    if store is None or not digest:
        return make()
    told = [digest, _code(), str(output_dir), str(output_dir.resolve()), command, *_files(rows, output_dir)]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    if (known := store.get(key)) is not None:
        return [str(line) for line in json.loads(known)]
    lines = make()
    store.put(key, json.dumps(lines).encode())
    return lines


def _files(rows: pd.DataFrame, output_dir: Path) -> Iterator[tuple[int, int] | None]:
    """(bytes, when it last changed in ns) of each file with predictions or scores of the rows; None where it is not there."""
    listed = rows[rows["predictions"].notna()] if "predictions" in rows else rows.iloc[:0]
    scores = [score_folder(output_dir, variant) for variant in ("", *known_variants(output_dir))]
    for key, outputs in zip(listed["key"], listed["predictions"], strict=True):
        name = stem(key, outputs)
        for path in (output_dir / "predictions" / f"{name}.json", *(folder / f"{name}.npz" for folder in scores)):
            try:
                stat = path.stat()
            except OSError:
                yield None
            else:
                yield stat.st_size, stat.st_mtime_ns


@cache
def _code() -> str:
    """Of the modules that make lines, so that those of other code are made anew."""
    package = Path(__file__).parent.parent
    paths = (path for room in ROOMS for path in sorted((package / room).glob("*.py")))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
