"""One part of samples.parquet: a file whose metadata lists the cells it holds, and shows whether the file is intact."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import socket
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blip2sweep.console.remarks import remark
from blip2sweep.files import write_atomic

SHOWN, HIDDEN = "samples.parquet", ".samples"  # folders of parts: published, and not published yet
ROWS = 200_000  # of a part, approximately
DICTIONARY = 2**24  # bytes: the distinct references of a task, which all of its cells repeat
CELLS, WRITTEN, DAMAGED = b"cells", b"written", "damaged"
CHECKSUM = re.compile(r"\.([0-9a-f]{8})\.parquet$")
NAME = re.compile(r"\d{9}-.+\.parquet")
NEWEST = 500_000_000  # rank of a part that no other part was merged into; see `samples.publish`


def parts_of(output_dir: Path) -> Iterator[Path]:
    """All parts, by name. The hidden folder is listed first: a part that is published meanwhile is then seen at least
    once. Files with other names are not parts."""
    folders = [output_dir / HIDDEN, output_dir / SHOWN]
    found = {p.name: p for f in folders if f.is_dir() for p in f.iterdir() if NAME.fullmatch(p.name)}
    return (found[name] for name in sorted(found))


def cells_of(path: Path) -> list[str]:
    """The entry names of the cells in a part. Empty when the part is gone; [DAMAGED] when it is damaged. The whole file
    is read only when it was touched or copied since it was written."""
    for place in (path, path.parent.parent / SHOWN / path.name):
        try:
            metadata = pq.read_schema(place).metadata or {}
            cells = json.loads(metadata[CELLS])
            intact = int(metadata.get(WRITTEN, 0)) == place.stat().st_mtime_ns or _checksum_holds(place)
            return cells if intact and all(isinstance(c, str) for c in cells) else _damaged(place)
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, OverflowError) as error:
            if _unreadable(error):
                raise
            if not _gone(error):
                return _damaged(place)
    return []


def columns_of(path: Path) -> pa.Schema:
    """The columns of a part; none when it is gone or damaged."""
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException):
        return pa.schema([])


def rows_in(path: Path) -> int:
    """The number of rows of a part; ROWS when it is gone or damaged, so that it is not merged."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException):
        return ROWS


def read_part(path: Path) -> pa.Table | None:
    """The rows of a part that `cells_of` found intact. None when another process removed it."""
    try:
        return pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        if _gone(error):
            return None
        if _unreadable(error):
            raise
    _damaged(path)
    path.unlink(missing_ok=True)  # its cells are then written again
    return None


def _damaged(path: Path) -> list[str]:
    """Remark on a damaged part. Returns the entry names that stand for it."""
    remark(f"{path}: damaged; its rows are made again from the predictions")
    return [DAMAGED]


def _checksum_holds(path: Path) -> bool:
    """Whether a part's content matches the checksum at the end of its name. Names of earlier versions have none, and
    count as matching."""
    checksum = CHECKSUM.search(path.name)
    if not checksum:
        return True
    matches = checksum[1] == f"{zlib.crc32(path.read_bytes()):08x}"
    if matches:
        with contextlib.suppress(OSError):  # the file may be somebody else's
            _restore_time(path)
    return matches


def _restore_time(path: Path) -> None:
    """Set a file's mtime to the time in its metadata, which shows that it was not touched since."""
    written = int((pq.read_schema(path).metadata or {}).get(WRITTEN, 0))
    os.utime(path, ns=(written, written))


def _gone(error: Exception) -> bool:
    """Whether another process removed the file. A network file system reports that as a stale handle."""
    return isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ESTALE)


def _unreadable(error: Exception) -> bool:
    """Whether the system refused to read the file. An error of arrow about damaged content has no errno."""
    return isinstance(error, OSError) and error.errno is not None and not _gone(error)


def write_part(output_dir: Path, table: pa.Table, cells: Sequence[str], before: Sequence[Path] = ()) -> Path:
    """Write a hidden part, whole or not at all. Returns its path.

    table: as `together` returns it. cells: entry names of the cells whose rows it holds, one for each key. before:
    parts that its name has to sort before. Raises OSError when the disk refuses.
    """
    rank = min((int(p.name[:9]) for p in before), default=NEWEST + 1) - 1
    metadata = {CELLS: json.dumps(cells), WRITTEN: str(time.time_ns())}
    buffer = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(metadata), buffer, compression="zstd", write_page_checksum=True,
        dictionary_pagesize_limit=DICTIONARY,
    )  # fmt: skip
    name = f"{rank:09d}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    path = output_dir / HIDDEN / f"{name}.{zlib.crc32(buffer.getbuffer()):08x}.parquet"
    write_atomic(path, buffer.getvalue())
    with contextlib.suppress(OSError):  # without it readers check the whole file
        _restore_time(path)
    return path
