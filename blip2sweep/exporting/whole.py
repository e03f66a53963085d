"""A folder that is written whole or not at all: under another name beside it, made durable, then renamed."""

from __future__ import annotations

import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blip2sweep.errors import UserError
from blip2sweep.files import is_disk_full, make_folder, sync_folder
from blip2sweep.machine.processes import exists

PART = re.compile(r"\..+\.part-(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8}")


def taken(folder: Path, flag: str) -> str | None:
    """What is wrong with a folder that is neither new nor empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        return f"{flag} {folder}: holds something already; right: a new or empty folder"
    return None


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A new empty folder, which has the given name when the body is through. Where it fails nothing is left.

    A process that was killed leaves a folder `.NAME.part-…`, which the next one removes. Raises UserError, one line, where
    the disk refuses.
    """
    folder = folder.absolute()
    part = folder.with_name(f".{folder.name}.part-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        make_folder(folder.parent)
        _sweep(folder)
        part.mkdir()
        yield part
        _let_read(part)
        _sync(part)
        part.rename(folder)  # onto a folder only where it is empty
        sync_folder(folder.parent)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError) or is_disk_full(error):
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
            raise UserError(f"{folder}: cannot be written ({why}); right: a folder with space") from error
        raise


def _let_read(folder: Path) -> None:
    """Let everybody read and write the files whom the user's umask lets, which the folder itself shows. The library of
    safetensors lets nobody else read what it writes."""
    let = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(let | (path.stat().st_mode & 0o111))


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


def _sweep(folder: Path) -> None:
    """Remove what killed processes of this host left of this folder."""
    for path in folder.parent.glob(f".{glob_escape(folder.name)}.part-*"):
        named = PART.fullmatch(path.name)
        if named and named["host"] == socket.gethostname() and not exists(int(named["pid"])):
            shutil.rmtree(path, ignore_errors=True)


def glob_escape(name: str) -> str:
    """A name as a glob that means it alone."""
    return re.sub(r"([*?\[])", r"[\1]", name)
