"""What image files hold: a digest of each file's bytes, and one of all images of a task. No torch, no Pillow here.

A file that was hashed once is remembered in the user's cache by path, size, times and inode, so that planning again
takes a stat a file. As git does it, a file that was changed within the last two seconds is not remembered: it may
change again without a trace. The worker hashes the bytes that it decodes and compares them with what was planned.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from blip2sweep.cache import disk as cache
from blip2sweep.canonical import canonical_json, digest
from blip2sweep.console import patience
from blip2sweep.errors import UserError
from blip2sweep.rows import Id

# How a file's bytes become a picture (see pictures.py). It is in every identity: a change here is another model's
# input.
READING = {"exif": "applied", "frame": "first", "transparent": "white", "16 bits": "scaled"}
RACY = 2 * 10**9  # nanoseconds: as long as a file system may give two writes the same time
THREADS = 8  # reading waits for the disk or the network; hashing lets other threads run
TRIES = 3
STORE, VERSION = "images", 1  # of what is remembered, in the user's cache
UNREADABLE = ""  # stands for the digest of a file that cannot be read

Signature = tuple[int, int, int, int]  # size, mtime_ns, ctime_ns, inode
Images = Mapping[Id, Path]  # {image id: path}, in the order of the task


class Hashed(NamedTuple):
    """digest: sha256 (hex) of a file's bytes, or UNREADABLE. error: why. signature: of the file when it was read."""

    digest: str
    error: str = ""
    signature: Signature | None = None


def images_digest(images: Images, skip: bool = False) -> str:
    """sha256 (hex) over ids and bytes of a task's distinct images, in order.

    With `skip`, a file that cannot be read counts as an empty one; else UserError names it.
    """
    found = file_digests(list(images.values()))
    bad = [(path, f.error) for path, f in zip(images.values(), found, strict=True) if f.digest == UNREADABLE]
    if bad and not skip:
        more = f", the first of {len(bad)} such images" if len(bad) > 1 else ""
        raise UserError(
            f"{bad[0][0]}: cannot be read ({bad[0][1]}){more}; right: a file you may read, or, where it is evaluated, "
            f"task.on_bad_image=skip"
        )
    return joined(zip(images, (f.digest for f in found), strict=True))


def joined(digests: Iterable[tuple[Id, str]]) -> str:
    """The sha256 (hex) over (image id, digest of its file), in order."""
    total = hashlib.sha256()
    for pair in digests:
        total.update(canonical_json(pair).encode() + b"\n")
    return total.hexdigest()


def content_of(path: Path) -> bytes:
    """A file's bytes. Raises OSError, also for anything but an ordinary file, since reading could block."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("not a file")
    return path.read_bytes()


# ---- planned and found


def check_planned(images: Images, planned: str, found: Mapping[Id, str], task: str) -> None:
    """Raise UserError where the files that were read are not those that were planned. found: {image id: digest}."""
    if joined((i, found.get(i, UNREADABLE)) for i in images) != planned:
        raise UserError(
            f"task {task}: its images changed between planning and running ({_changed(images, found)}); right: the same "
            f"command again, which plans the images as they are now"
        )


def planned_part(images: Images, planned: str, part: Images, task: str) -> str:
    """The digest of some of the images.

    Raises UserError where the images as a whole are not those that were planned.
    """
    found = {i: f.digest for i, f in zip(images, file_digests(list(images.values())), strict=True)}
    check_planned(images, planned, found, task)
    return joined((i, found[i]) for i in part)


def _changed(images: Images, found: Mapping[Id, str]) -> str:
    """The first file whose content differs from the last plan's, or the newest file where no plan is remembered.

    The next plan reads such files again, also on a file system that keeps no times.
    """
    memory = _Memory()
    known = ((path, memory.last(path), found.get(i, UNREADABLE)) for i, path in images.items())
    others = [path for path, then, now in known if then not in (None, now)]
    if others:
        memory.doubt(others)
        return f"{others[0]}" + (f" and {len(others) - 1} more" if len(others) > 1 else "")
    times = {path: s[2] for path in images.values() if (s := _signature(path)) is not None}
    return f"changed last: {max(times, key=lambda p: times[p])}" if times else "none of them can be read"


# ---- hashing and remembering


def file_digests(paths: Sequence[Path]) -> list[Hashed]:
    """The digest of each file. A file that was hashed before, and has not changed since, is not opened."""
    memory = _Memory()
    found = {path: memory.get(path) for path in paths}
    missing = [path for path, known in found.items() if known is None]
    try:
        for path, hashed in zip(missing, _hashed_all(missing), strict=True):
            found[path] = hashed
            memory.put(path, hashed)
    finally:  # what was hashed before the user lost patience stays known
        memory.save()
    return [f for p in paths if (f := found[p]) is not None]


def _hashed_all(paths: Sequence[Path]) -> Iterator[Hashed]:
    if not paths:
        return
    pool = ThreadPoolExecutor(THREADS)
    try:
        words = f"hashing {len(paths)} images, once: what they hold is part of the key"
        yield from patience.shown(pool.map(_hashed, paths), len(paths), words)
    finally:
        pool.shutdown(cancel_futures=True)


def _hashed(path: Path) -> Hashed:
    """The digest of one file. A file that changes meanwhile is read again."""
    try:
        for _ in range(TRIES):
            before, now = path.stat(), time.time_ns()
            if not stat.S_ISREG(before.st_mode):
                return Hashed(UNREADABLE, "not a file")
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            if (signature := _signed(before)) == _signed(path.stat()):
                racy = max(signature[1], signature[2]) > now - RACY
                return Hashed(content, signature=None if racy else signature)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        return Hashed(UNREADABLE, getattr(error, "strerror", None) or str(error))
    return Hashed(UNREADABLE, "changes while it is read")


def _signature(path: Path) -> Signature | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return _signed(found) if stat.S_ISREG(found.st_mode) else None


def _signed(found: os.stat_result) -> Signature:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


class _Memory:
    """The hashes of earlier runs: one entry of the user's cache for each folder of images."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, list[int | str]]] = {}
        self._new: dict[str, dict[str, list[int | str]]] = {}

    @cached_property
    def _store(self) -> cache.Store | None:
        return cache.of_user(STORE)

    def get(self, path: Path) -> Hashed | None:
        known = self._known(path)
        if known is None or (signature := _signature(path)) is None or tuple(known[:4]) != signature:
            return None
        return Hashed(str(known[4]), signature=signature)

    def last(self, path: Path) -> str | None:
        """The last known digest of a file; None where it was never hashed."""
        known = self._known(path)
        return None if known is None else str(known[4])

    def put(self, path: Path, hashed: Hashed) -> None:
        if hashed.signature is not None:
            folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100  # a link's own name, not what it means
            self._new.setdefault(folder, {})[name] = [*hashed.signature, hashed.digest]

    def doubt(self, paths: Iterable[Path]) -> None:
        """Keep the last digests of these files with a signature that no file has, so that the files are read again."""
        for path in paths:
            if (known := self.last(path)) is not None:
                self.put(path, Hashed(known, signature=(-1, -1, -1, -1)))
        self.save()

    def save(self) -> None:
        """Add the new hashes to the stored ones. Where two runs save at once, the hashes of one are lost and computed
        again."""
        for folder, new in self._new.items():
            if self._store is not None:
                text = json.dumps({**self._read(folder), **new}, separators=(",", ":"))
                self._store.put(_entry(folder), text.encode())

    def _known(self, path: Path) -> list[int | str] | None:
        folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100
        if folder not in self._folders:
            self._folders[folder] = self._read(folder)
        known = self._folders[folder].get(name)
        return known if isinstance(known, list) and len(known) == 5 else None

    def _read(self, folder: str) -> dict[str, list[int | str]]:
        payload = self._store.get(_entry(folder)) if self._store is not None else None
        try:
            found = json.loads(payload or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def _entry(folder: str) -> str:
    """The name of a folder's entry."""
    return digest([VERSION, folder])[:32]
