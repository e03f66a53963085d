"""A store on disk that jobs share: bytes by key in the files of a folder, checked when read. No torch here.

An entry is one line of JSON (version, key, sha256, length) and then the bytes. It is written under a temporary name and
renamed. So two writers of one entry do no harm, and a killed writer leaves nothing that is ever read. An entry that is
cut, altered or of another version counts as absent. If the folder cannot be written, the store warns once and stays
empty; the process goes on with what it has in memory.
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
from typing import NamedTuple

from blip2sweep.console.printing import say
from blip2sweep.errors import UserError, nearest

VERSION = 1  # of the format of entries; entries of another version are never read
FOLDER = "cache"  # in the output_dir
RECOVERY = "recovery"  # in it, checkpoints of trainings
USER = "BLIP2SWEEP_CACHE_DIR"  # the folder of a user's stores, which all output_dirs share
USER_BYTES = 10**9  # of each store of a user
MODES = ("disk", "memory", "off")
LARGEST_HEADER = 4096
GOING_ON = "going on in memory. Right: a writable folder with space, or cache=memory"
STALE = 3600.0  # seconds; an older temporary file was left by a killed writer, an older checkpoint by a killed training


class Info(NamedTuple):
    """The size of a store. bytes: of its files; budget: the most bytes it may have."""

    entries: int
    bytes: int
    budget: int


class Store:
    """The entries in `folder`, at most `budget` bytes. The least recently used are removed first."""

    def __init__(self, folder: Path, budget: int, warns: bool = True) -> None:
        self.folder, self.budget, self.warns = folder, budget, warns
        self.refused: str | None = None  # the reason why the folder cannot be written

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
        """Write an entry whole or not at all. Returns whether it is there now. Raises no OSError."""
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
        """Remove every entry. Returns the size before."""
        before = self.info()
        for _, _, path in self._files():
            with contextlib.suppress(OSError):
                path.unlink()
        return before

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.entry"

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """(last use, bytes, path) of entries, of temporary files that killed writers left, and of checkpoints of
        trainings that nothing goes on with."""
        for pattern in ("*.entry", ".*.tmp", f"{RECOVERY}/*.safetensors"):
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
    """The payload after a header line. None unless both are whole and of this version and key."""
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict) or (header.get("version"), header.get("key")) != (VERSION, key):
        return None
    payload = read()
    return payload if hashlib.sha256(payload).hexdigest() == header.get("sha256") else None


def verb(output_dir: Path, what: str) -> str:
    """The output of `blip2sweep cache info` and `cache clear`."""
    if what not in ("info", "clear"):
        raise UserError(f"blip2sweep cache {what}: {nearest(what, ('info', 'clear'))}")
    stores = [Store(output_dir / FOLDER, 0), *_of_user()]
    found = [(s.folder, s.clear() if what == "clear" else s.info()) for s in stores]
    done = " removed" if what == "clear" else ""
    return "\n".join(f"{folder}: {i.entries} entries, {i.bytes / 1e6:.1f} MB{done}" for folder, i in found)


# ---- stores of a user


def of_user(name: str) -> Store | None:
    """A store of results that do not depend on the output_dir. None where the user has no folder for it.

    It does not warn when it cannot be written, because it only saves time.
    """
    folder = user_folder()
    return Store(folder / name, USER_BYTES, warns=False) if folder else None


def user_folder() -> Path | None:
    """The folder BLIP2SWEEP_CACHE_DIR; else `blip2sweep` in XDG_CACHE_HOME or ~/.cache."""
    if os.environ.get(USER):
        return Path(os.environ[USER]).expanduser().absolute()
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():
        return given / "blip2sweep"
    try:
        return Path.home() / ".cache" / "blip2sweep"
    except RuntimeError:  # a user id without a home
        return None


def _of_user() -> Iterator[Store]:
    folder = user_folder()
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()) if folder else ():
            if path.is_dir():
                yield Store(path, USER_BYTES)


def settings(config: Mapping[str, object]) -> dict[str, str | float | None]:
    """The cache settings of a worker. Raises UserError as `check` does.

    Warns on stderr if the folder cannot be written, because a worker's own warning is in its log.
    """
    mode, sizes = check(config)
    folder = (Path(str(config["output_dir"])) / FOLDER).resolve()
    if mode == "disk" and folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
        say(f"warning: cache {folder}: not a writable folder; {GOING_ON}", err=True)
    return {"cache": mode, "cache_dir": str(folder), **sizes}


def check(config: Mapping[str, object]) -> tuple[str, dict[str, float | None]]:
    """(mode, sizes in gigabytes) of a config. Raises UserError for an unknown mode or a wrong size."""
    mode = str(config.get("cache") or "disk")
    if mode not in MODES:
        raise UserError(f"cache={mode}: unknown; {nearest(mode, MODES)}")
    return mode, {name: _gigabytes(name, config.get(name)) for name in ("cache_gb", "cache_memory_gb")}


def _gigabytes(name: str, value: object) -> float | None:
    if value is None or (isinstance(value, int | float) and value >= 0):
        return value
    raise UserError(f"{name}={value}: right: gigabytes, 0 or more, or null to choose by what is free")
