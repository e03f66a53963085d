"""Writes files whole or not at all, and finds damaged ones when it reads them.

A JSON object ends with a checksum of all bytes before it. Reading compares the bytes with it and need not inspect the
parsed data. An object without a checksum (an earlier version wrote it) is accepted.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import time
import uuid
import zlib
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from blip2sweep.errors import UserError
from blip2sweep.machine.processes import exists

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
NETWORK = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "wekafs")
SEAL = b'"crc":"'
SEALED = len(SEAL) + 10  # bytes of `"crc":"1a2b3c4d"}`
WRAPPED = {"data"}  # the only key of an object that holds data of another type
TEMPORARY = re.compile(r"\..+\.(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8}\.tmp")
# Age in seconds from which a temporary file may have been left by a killed writer. On this host the writer's process
# must be gone as well. Of another host we cannot know whether it is.
OLD_HERE, OLD_ELSEWHERE = 3600.0, 7 * 86400.0


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write under a temporary name, fsync, rename, fsync the folder. Raises UserError and leaves nothing half-written."""
    _write(path, data, Path.replace)


def write_new(path: Path, data: bytes) -> bool:
    """Write a file as `write_atomic` does, unless there is one; of several writers one makes it. Returns whether it was
    written. On a file system without links the last writer's stays."""
    try:
        _write(path, data, _link)
    except _Taken:
        return False
    return True


class _Taken(Exception):
    """A file is there."""


def _link(temporary: Path, path: Path) -> None:
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise _Taken from None
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if path.exists():
            raise _Taken from None
        temporary.replace(path)


def _write(path: Path, data: bytes | memoryview, place: Callable[[Path, Path], object], durable: bool = True) -> None:
    """place: gives the temporary file its name."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        make_folder(path.parent)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        place(temporary, path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); right: a writable output_dir with space"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it may fail for the reason that is reported, or have its name
            temporary.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they are there after a power failure too."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename or a new file in the folder durable. Some network file systems cannot do that."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_WORDS = tuple(os.strerror(code) for code in FULL)  # for errors of libraries, which may lack the code


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error or its cause says that the disk is full, or that a quota or limit is reached."""
    while error is not None:
        if getattr(error, "errno", None) in FULL or any(words in str(error) for words in FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


# ---- checksums


def seal(start: bytes) -> bytes:
    """A JSON object with its checksum. start: its text without the closing brace; it ends with `{` or a comma."""
    return b'%b"crc":"%08x"}' % (start, zlib.crc32(start))


def seal_holds(data: bytes) -> bool | None:
    """Whether the bytes before a checksum match it. None without a checksum."""
    if data[-SEALED:-10] != SEAL:
        return None
    return data[-10:] == b'%08x"}' % zlib.crc32(memoryview(data)[:-SEALED])


def write_json(path: Path, data: object, durable: bool = True) -> None:
    """Write JSON with a checksum, whole or not at all. Raises UserError. durable: it outlives a power failure."""
    _write(path, json_bytes(data), Path.replace, durable)


def json_bytes(data: object) -> bytes:
    """JSON with a checksum at its end. Data other than an object becomes the `data` of one."""
    data = data if isinstance(data, dict) else {"data": data}
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)[:-1]
    return seal((text + "," if data else text).encode())


def read_json(path: Path) -> Any:
    """The JSON in a file, without its checksum. The caller knows the type of what it wrote.

    Raises UserError for a file that is cut, not JSON or not as it was written. A file that does not end with a checksum
    (an earlier version wrote it, or somebody edited it) is accepted.
    """
    try:
        text = path.read_bytes()
        data = json.loads(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not whole JSON ({error})") from error
    if seal_holds(text) is False:
        raise UserError(f"{path}: not what was written (its checksum differs); right: an unchanged copy")
    if not isinstance(data, dict) or "crc" not in data:
        return data
    del data["crc"]
    return data["data"] if data.keys() == WRAPPED else data


# ---- notes that say how a file was written


def write_noted(path: Path, data: object) -> list[int]:
    """`write_json`. Returns a note for `as_noted`: [bytes, mtime in ns, crc32] of the file."""
    text = json_bytes(data)
    write_atomic(path, text)
    return [len(text), path.stat().st_mtime_ns, zlib.crc32(text)]


def as_noted(path: Path | str, stat: os.stat_result, note: list[int] | None) -> bool:
    """Whether a file is as it was written. stat: its size and time now; note: what `write_noted` returned.

    The file is read only if its time has changed. Without a note (an earlier version wrote it) it must end like JSON.
    """
    if note is not None and stat.st_size != note[0]:
        return False
    if note is not None and stat.st_mtime_ns == note[1]:
        return True
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            if note is not None:
                return zlib.crc32(file.read()) == note[2]
            return stat.st_size > 1 and file.seek(-1, os.SEEK_END) >= 0 and file.read() == b"}"
    except FileNotFoundError:
        return False
    except OSError:
        return True  # it is there but belongs to another user; whoever reads it gets the error


# ---- files that killed writers leave


def sweep_up(folders: Iterable[Path]) -> None:
    """Remove the temporary files of writers that are certainly dead."""
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") and entry.name.endswith(".tmp") and _is_rest(entry):
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)  # noqa: PTH108


def _is_rest(entry: os.DirEntry[str]) -> bool:
    named = TEMPORARY.fullmatch(entry.name)
    try:
        age = time.time() - entry.stat().st_mtime
    except OSError:
        return False
    if named is not None and named["host"] != socket.gethostname():
        return age > OLD_ELSEWHERE
    return age > OLD_HERE and not (named and exists(int(named["pid"])))


# ---- paths


def on_network(path: Path) -> bool:
    """Whether a path is on a network file system: other hosts may write there, and their writes are seen late."""
    return filesystem(path) in NETWORK


def filesystem(path: Path) -> str:
    """The type of the file system that holds a path, from /proc/mounts. `unknown` without that file."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    path = path.resolve()
    inside = [(where, kind) for where, kind in mounts if path == Path(where) or Path(where) in path.parents]
    return max(inside, key=lambda m: len(m[0]), default=("", "unknown"))[1]


def local_path(text: str) -> Path:
    """The path for a text in the config: `pkg://package/inner/path` (shipped with the package) or an ordinary path."""
    if not text.startswith("pkg://"):
        return Path(text).expanduser()
    package, _, inner = text.removeprefix("pkg://").partition("/")
    return Path(str(files(package) / inner))
