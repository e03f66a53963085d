"""Lines for the terminal that were made before. A sweep that is run again has the same ones, and what they say of pairs of
cells takes a quarter of a second: the statistics of the cells are read, and their intervals computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from blip2sweep.cache import disk
from blip2sweep.reporting.drawn_before import rows_digest

STORE = "lines"  # of the user's stores
ROOMS = ("analysis", "metrics", "reporting")  # whose code makes them


def said_before(rows: pd.DataFrame, words: Sequence[str], make: Callable[[], list[str]]) -> list[str]:
    """What `make` returns, or returned for the same rows and words. Rows have the hashes of predictions and the scores, so
    they say which statistics are read. words: all else that the lines depend on."""
    store, digest = disk.of_user(STORE), rows_digest(rows)
    if store is None or not digest:
        return make()
    key = hashlib.sha256(json.dumps([digest, _code(), *words]).encode()).hexdigest()
    if (known := store.get(key)) is not None:
        return [str(line) for line in json.loads(known)]
    lines = make()
    store.put(key, json.dumps(lines).encode())
    return lines


@cache
def _code() -> str:
    """Of the modules that make lines, so that those of other code are made anew."""
    package = Path(__file__).parent.parent
    paths = (path for room in ROOMS for path in sorted((package / room).glob("*.py")))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
