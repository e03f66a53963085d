"""What a process writes into the ledger: a file of its own, line by line, each whole and durable."""

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

# A folder of one file of noughts for each journal there ever was, so that a lost one is missed; when its journal is closed it
# is as many bytes long as that has lines, so that lost last ones are missed too. A killed writer leaves it empty.
OPENED = ".journals"


class Journal:
    """One process's append-only file. Opened at the first line, so that a reader leaves no file behind."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.path = _new_path(output_dir)
        self._fd: int | None = None
        self._lines = 0  # that are there

    def write(self, event: str, **fields: object) -> None:
        """Append one line and fsync it. Raises UserError, one line, when the disk refuses."""
        self.write_many(event, [fields])

    def write_many(self, event: str, records: Iterable[Mapping[str, object]]) -> None:
        """Append lines of one kind with one fsync: all of them, or none and UserError."""
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
            self.path, self._lines = _new_path(self.output_dir), 0
        if self._fd is None:
            make_folder(self.path.parent)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            sync_folder(self.path.parent)
            note_opened(self.path)
        return self._fd

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            note_closed(self.path, self._lines)


def _new_path(output_dir: Path) -> Path:
    return output_dir / "journals" / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"


def _is_at(fd: int, path: Path) -> bool:
    """Whether an open file is still the one with that name: predictions go where the name says."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def note_opened(path: Path) -> None:
    """Leave a journal's name, so that it is missed should it get lost. Nothing depends on it otherwise."""
    folder = path.parent.parent / OPENED
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        (folder / path.name).touch()
        sync_folder(folder)


def note_closed(path: Path, lines: int) -> None:
    """Leave a journal's number of lines, of one that will not grow."""
    with contextlib.suppress(OSError):
        os.truncate(path.parent.parent / OPENED / path.name, lines)


def _write_all(fd: int, lines: bytes) -> None:
    """Whole lines or nothing: what a full disk cut off is taken back, so that a later line does not join it."""
    start = os.fstat(fd).st_size
    try:
        written = os.write(fd, lines)
        if written < len(lines):
            raise OSError(28, "No space left on device")
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, start)
        raise
