"""Files written whole or not at all, and found damaged when they are read.

A JSON object ends with a checksum of all that stands before it, so that reading needs no second look at what was parsed. One
without (written by an earlier version) is taken as it is.
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
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from blip2sweep.errors import UserError
from blip2sweep.machine.processes import exists

NETWORK = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "wekafs")
SEAL = b'"crc":"'
SEALED = len(SEAL) + 10  # bytes of `"crc":"1a2b3c4d"}`
WRAPPED = {"data"}  # the only key of what is no object by itself
TEMPORARY = re.compile(r"\..+\.(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8}\.tmp")
# Seconds after which a temporary file may be the rest of a killed writer: on this host, where its process is gone as well;
# of another host, where that cannot be known.
OLD_HERE, OLD_ELSEWHERE = 3600.0, 7 * 86400.0


def write_atomic(path: Path, data: bytes) -> None:
    """Write under a temporary name, fsync, rename, fsync the folder. Raises UserError, one line, and leaves nothing
    half-written."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        make_folder(path.parent)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # such as the very one that is to be told
            temporary.unlink()
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); right: a writable output_dir with space"
        ) from error


def make_folder(folder: Path) -> None:
    """A folder that is there after a crash of power too, with every one above it that is new."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename or a new file in it durable. Some network file systems know no such thing."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_WORDS = tuple(os.strerror(code) for code in FULL)  # libraries that write by themselves leave only words


def is_disk_full(error: BaseException | None) -> bool:
    """Whether it comes from a disk without space, or from a quota or limit that is met."""
    while error is not None:
        if getattr(error, "errno", None) in FULL or any(words in str(error) for words in FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


# ---- checksums


def seal(start: bytes) -> bytes:
    """The whole text of an object from all of it but its closing brace; start ends with `{` or a comma."""
    return b'%b"crc":"%08x"}' % (start, zlib.crc32(start))


def seal_holds(data: bytes) -> bool | None:
    """Whether what stands before a checksum is what was written; None without a checksum."""
    if data[-SEALED:-10] != SEAL:
        return None
    return data[-10:] == b'%08x"}' % zlib.crc32(memoryview(data)[:-SEALED])


def write_json(path: Path, data: Any) -> None:
    """`write_atomic` of JSON with a checksum."""
    write_atomic(path, json_bytes(data))


def json_bytes(data: Any) -> bytes:
    """JSON with a checksum at its end; what is no object becomes the `data` of one."""
    data = data if isinstance(data, dict) else {"data": data}
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)[:-1]
    return seal((text + "," if data else text).encode())


def read_json(path: Path) -> Any:
    """The JSON in a file, without its checksum. Raises UserError when it is cut, not JSON or not what was written. One that
    does not end with a checksum (of an earlier version, or edited) is taken as it is."""
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


# ---- what a file was when it was written


def write_noted(path: Path, data: Any) -> list[int]:
    """`write_json`; [bytes, mtime in ns, crc32] of the file, for `as_noted`."""
    text = json_bytes(data)
    write_atomic(path, text)
    return [len(text), path.stat().st_mtime_ns, zlib.crc32(text)]


def as_noted(path: Path | str, stat: os.stat_result, note: list[int] | None) -> bool:
    """Whether a file is what it was. It is read only where it was touched since, or copied; without a note (of an earlier
    version) it has to end like JSON."""
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
        return True  # somebody else's: it is there, and who wants to read it is told


# ---- what killed writers leave


def sweep_up(folders: Iterable[Path]) -> None:
    """Remove temporary files of writers that are surely dead."""
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


# ---- where files lie


def on_network(path: Path) -> bool:
    """Whether other hosts may write there, and are seen late."""
    return filesystem(path) in NETWORK


def filesystem(path: Path) -> str:
    """Type of the mount that holds a path, from /proc/mounts; `unknown` where there is none."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    path = path.resolve()
    inside = [(where, kind) for where, kind in mounts if path == Path(where) or Path(where) in path.parents]
    return max(inside, key=lambda m: len(m[0]), default=("", "unknown"))[1]


def local_path(text: str) -> Path:
    """A path as the config writes it: `pkg://package/inner/path` (shipped with the package) or an ordinary one."""
    if not text.startswith("pkg://"):
        return Path(text).expanduser()
    package, _, inner = text.removeprefix("pkg://").partition("/")
    return Path(str(files(package) / inner))
