"""Writes a process's part of the ledger: a file of its own, line by line, each line whole and durable."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from blip2sweep.console.remarks import remark
from blip2sweep.errors import UserError
from blip2sweep.files import make_folder, sync_folder
from blip2sweep.results.lines import sealed

# A folder with one file for each journal that was ever opened. It shows when a journal is lost. When a journal is
# closed, its file gets as many bytes (all zero) as the journal has lines, which shows when last lines are lost. After a
# killed writer it is empty.
OPENED = ".journals"


class Journal:
    """One process's append-only file. The first line opens it, so that a process that only reads leaves no file
    behind."""

    def __init__(self, output_dir: Path, kind: str = "") -> None:
        """kind: ends the file's name, so that journals of one kind are found without opening all others."""
        self.output_dir, self.kind = output_dir, kind
        self.path = _new_path(output_dir, kind)
        self._fd: int | None = None
        self._lines = 0  # written so far

    def write(self, event: str, **fields: object) -> None:
        """Append one line and fsync it. Raises UserError, one line, when the disk refuses."""
        self.write_many(event, [fields])

    def write_many(self, event: str, records: Iterable[Mapping[str, object]]) -> None:
        """Append lines of one event with one fsync. Writes all of them, or none and raises UserError."""
        head = {"event": event, "time": time.time(), "host": socket.gethostname(), "pid": os.getpid()}
        try:
            fd = self._open()
            lines = [sealed({**head, **r}, i) for i, r in enumerate(records, self._lines)]
            _write_all(fd, b"".join(lines))
            self._lines += len(lines)
        except OSError as error:
            raise UserError(
                f"ledger {self.path}: cannot be written ({error.strerror}); right: a writable output_dir with space"
            ) from error

    def _open(self) -> int:
        if self._fd is not None and not _is_at(self._fd, self.path):
            remark(f"ledger {self.path}: moved or removed while it was written; going on in a new one there")
            self.close()
            self.path, self._lines = _new_path(self.output_dir, self.kind), 0
        if self._fd is None:
            make_folder(self.path.parent)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            sync_folder(self.path.parent)
            note_opened(self.path)
        return self._fd

    def close(self) -> None:
        """Close the file and record its number of lines. Does nothing when no line was written."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            note_closed(self.path, self._lines)


def _new_path(output_dir: Path, kind: str) -> Path:
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}{kind}.jsonl"
    return output_dir / "journals" / name


def _is_at(fd: int, path: Path) -> bool:
    """Whether the open file still has that path. Predictions are written below the path, so the journal has to be there
    too."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def note_opened(path: Path) -> None:
    """Leave a file with the journal's name in OPENED, so that a lost journal is noticed. A failure to do so is
    ignored."""
    folder = path.parent.parent / OPENED
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        (folder / path.name).touch()
        sync_folder(folder)


def note_closed(path: Path, lines: int) -> None:
    """Record the number of lines of a journal that will not grow any more. A failure to do so is ignored."""
    with contextlib.suppress(OSError):
        os.truncate(path.parent.parent / OPENED / path.name, lines)


def _write_all(fd: int, lines: bytes) -> None:
    """Write whole lines or nothing. What a full disk cut off is truncated, so that a later line does not join it."""
    start = os.fstat(fd).st_size
    try:
        written = os.write(fd, lines)
        if written < len(lines):
            raise OSError(28, "No space left on device")
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, start)
        raise
