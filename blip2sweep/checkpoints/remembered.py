"""What was found out about checkpoints, kept in the user's cache folder: `$XDG_CACHE_HOME/blip2sweep`, or
`~/.cache/blip2sweep`. Checkpoints are often read-only, and many output folders share them.

Nothing depends on it: where it cannot be read or written, things are found out again.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from blip2sweep.cache import Store

BUDGET = 64 * 2**20


def get(name: str) -> bytes | None:
    """What was kept under a name; None where nothing was, or it is damaged."""
    store = _store()
    return store.get(name) if store else None


def put(name: str, told: bytes) -> None:
    store = _store()
    if store:
        with warnings.catch_warnings():  # a folder that cannot be written costs time and nothing else
            warnings.simplefilter("ignore")
            store.put(name, told)


def _store() -> Store | None:
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        home = chosen if chosen.is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        return None
    return Store(home / "blip2sweep" / "checkpoints", BUDGET)
