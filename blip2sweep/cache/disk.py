"""The store that jobs share: files of bytes by key in a folder, checked when read. No torch here.

An entry is one line of JSON (version, key, sha256, length) and then the bytes. It is written under a temporary name and
renamed, so that two writers of one entry do no harm and a killed one leaves nothing that is ever read. An entry that is
cut, altered or of another version counts as not there. When the folder cannot be written, one warning is given and the
store stays empty: work goes on from memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from blip2sweep.console.printing import say
from blip2sweep.errors import UserError, nearest

VERSION = 1  # of the entries' format; those of another one are ignored, and go first when room is needed
FOLDER = "cache"  # in the output_dir
USER = "BLIP2SWEEP_CACHE_DIR"  # the folder of what is kept for a user, whatever the output_dir
USER_BYTES = 10**9  # of each of its stores
MODES = ("disk", "memory", "off")
LARGEST_HEADER = 4096
GOING_ON = "going on in memory. Right: a writable folder with space, or cache=memory"
STALE = 3600.0  # seconds after which a temporary file is the rest of a killed writer


class Info(NamedTuple):
    """What a folder holds."""

    entries: int
    bytes: int
    budget: int


class Store:
    """Entries under `folder`, at most `budget` bytes of them: the least recently used go first."""

    def __init__(self, folder: Path, budget: int, warns: bool = True) -> None:
        self.folder, self.budget, self.warns = folder, budget, warns
        self.refused: str | None = None  # why the folder could not be written

    def get(self, key: str) -> bytes | None:
        """The bytes of an entry, or None when it is absent, damaged or of another version."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                payload = _checked(key, file.readline(LARGEST_HEADER), file.read)
        except OSError:
            return None
        if payload is not None:
            with contextlib.suppress(OSError):
                os.utime(path)  # recently used
        return payload

    def put(self, key: str, payload: bytes) -> bool:
        """Write an entry whole or not at all; True if it is there now. Never raises for what a disk may refuse."""
        if len(payload) > self.budget:
            return False
        temporary = self._path(key).with_name(f".{key}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._make_room(len(payload))
            with temporary.open("wb") as file:
                file.write(_header(key, payload))
                file.write(payload)
            temporary.replace(self._path(key))
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            self._warn(error)
            return False
        return True

    def info(self) -> Info:
        files = [size for _, size, _ in self._files()]
        return Info(len(files), sum(files), self.budget)

    def clear(self) -> Info:
        """Remove every entry. Returns what there was."""
        before = self.info()
        for _, _, path in self._files():
            with contextlib.suppress(OSError):
                path.unlink()
        return before

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.entry"

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """(last use, bytes, path) of entries and of what killed writers left."""
        for pattern in ("*.entry", ".*.tmp"):
            for path in self.folder.glob(pattern):
                with contextlib.suppress(OSError):  # another worker may have evicted it
                    stat = path.stat()
                    if pattern == "*.entry" or time.time() - stat.st_mtime > STALE:
                        yield stat.st_mtime, stat.st_size, path

    def _make_room(self, size: int) -> None:
        files = sorted(self._files())
        excess = sum(s for _, s, _ in files) + size - self.budget
        for _, length, path in files:
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= length

    def _warn(self, error: OSError) -> None:
        if self.refused is None:
            self.refused = error.strerror or str(error)
            if self.warns:
                warnings.warn(f"cache {self.folder}: cannot be written ({error.strerror}); {GOING_ON}", stacklevel=3)


def _header(key: str, payload: bytes) -> bytes:
    fields = {"version": VERSION, "key": key, "sha256": hashlib.sha256(payload).hexdigest(), "length": len(payload)}
    return json.dumps(fields).encode() + b"\n"


def _checked(key: str, line: bytes, read: Callable[[], bytes]) -> bytes | None:
    """The payload behind a header line, when both are whole and belong to this version and key."""
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict) or (header.get("version"), header.get("key")) != (VERSION, key):
        return None
    payload = read()
    return payload if hashlib.sha256(payload).hexdigest() == header.get("sha256") else None


def verb(output_dir: Path, what: str) -> str:
    """What `blip2sweep cache info` and `cache clear` print."""
    if what not in ("info", "clear"):
        raise UserError(f"blip2sweep cache {what}: {nearest(what, ('info', 'clear'))}")
    stores = [Store(output_dir / FOLDER, 0), *_of_user()]
    found = [(s.folder, s.clear() if what == "clear" else s.info()) for s in stores]
    done = " removed" if what == "clear" else ""
    return "\n".join(f"{folder}: {i.entries} entries, {i.bytes / 1e6:.1f} MB{done}" for folder, i in found)


# ---- what is kept for a user


def of_user(name: str) -> Store | None:
    """A store of what is true whatever the output_dir; None where the user has no folder for such things. It says nothing
    when it cannot be written: it saves time and nothing else."""
    folder = user_folder()
    return Store(folder / name, USER_BYTES, warns=False) if folder else None


def user_folder() -> Path | None:
    """BLIP2SWEEP_CACHE_DIR; else `blip2sweep` in XDG_CACHE_HOME or ~/.cache."""
    if os.environ.get(USER):
        return Path(os.environ[USER]).expanduser().absolute()
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():
        return given / "blip2sweep"
    try:
        return Path.home() / ".cache" / "blip2sweep"
    except RuntimeError:  # a uid without a home
        return None


def _of_user() -> Iterator[Store]:
    folder = user_folder()
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()) if folder else ():
            if path.is_dir():
                yield Store(path, USER_BYTES)


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker is told of the config's cache keys. Says on stderr when the folder cannot be written: a worker's own
    warning is in its log."""
    mode, sizes = check(config)
    folder = (Path(config["output_dir"]) / FOLDER).resolve()
    if mode == "disk" and folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
        say(f"warning: cache {folder}: not a writable folder; {GOING_ON}", err=True)
    return {"cache": mode, "cache_dir": str(folder), **sizes}


def check(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(mode, sizes). Raises UserError for a mode or size that cannot be meant."""
    mode = config.get("cache") or "disk"
    if mode not in MODES:
        raise UserError(f"cache={mode}: unknown; {nearest(str(mode), MODES)}")
    sizes = {k: config.get(k) for k in ("cache_gb", "cache_memory_gb")}
    for name, value in sizes.items():
        if value is not None and value < 0:
            raise UserError(f"{name}={value}: right: gigabytes, 0 or more, or null to choose by what is free")
    return mode, sizes
