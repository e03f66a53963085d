"""One part of samples.parquet: a file whose metadata says which cells it holds, and whether it is whole."""

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
from blip2sweep.results.sample_rows import is_known

SHOWN, HIDDEN = "samples.parquet", ".samples"  # folders: what readers see, and what is to come
ROWS = 200_000  # of a part, about
CELLS, WRITTEN, DAMAGED = b"cells", b"written", "damaged"
CHECKSUM = re.compile(r"\.([0-9a-f]{8})\.parquet$")
NAME = re.compile(r"\d{9}-.+\.parquet")
NEWEST = 500_000_000  # the rank of a part that was made of none; see `samples.show`


def parts_of(output_dir: Path) -> Iterator[Path]:
    """By name. Looked for where they come from first, so that none is missed on its way; files of others are not parts."""
    folders = [output_dir / HIDDEN, output_dir / SHOWN]
    found = {p.name: p for f in folders if f.is_dir() for p in f.iterdir() if NAME.fullmatch(p.name)}
    return (found[name] for name in sorted(found))


def cells_of(path: Path) -> list[str]:
    """Of a part; none when it is gone, one that nobody wants when it is not what was written. The whole file is looked at
    where it was touched since, or copied."""
    for place in (path, path.parent.parent / SHOWN / path.name):
        try:
            told = pq.read_schema(place).metadata or {}
            found = json.loads(told[CELLS])
            written = int(told.get(WRITTEN, 0)) == place.stat().st_mtime_ns or _as_named(place)
            return found if written and all(isinstance(c, str) for c in found) else _unwanted(place)
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, OverflowError) as error:
            if _refused(error):
                raise
            if not _gone(error):
                return _unwanted(place)
    return []


def columns_of(path: Path) -> list[str]:
    """Of a part; none when it is gone, or damaged, which others see to."""
    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException):
        return []


def rows_in(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException):
        return ROWS  # gone or damaged: nothing to merge


def read_part(path: Path) -> pa.Table | None:
    """The rows of a part that `cells_of` found whole; None when another process took it away."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        if is_known(table):
            return table
    except (OSError, pa.ArrowException) as error:
        if _gone(error):
            return None
        if _refused(error):
            raise
    _unwanted(path)
    path.unlink(missing_ok=True)  # without it its cells are written again
    return None


def _unwanted(path: Path) -> list[str]:
    remark(f"{path}: damaged; its rows are made again from the predictions")
    return [DAMAGED]


def _as_named(path: Path) -> bool:
    """Whether a part's content is that whose checksum its name ends with; names of earlier versions have none."""
    named = CHECKSUM.search(path.name)
    if not named:
        return True
    right = named[1] == f"{zlib.crc32(path.read_bytes()):08x}"
    if right:
        with contextlib.suppress(OSError):  # somebody else's
            _as_written(path)
    return right


def _as_written(path: Path) -> None:
    """Have its time say that nobody touched it since it was written."""
    written = int((pq.read_schema(path).metadata or {}).get(WRITTEN, 0))
    os.utime(path, ns=(written, written))


def _gone(error: Exception) -> bool:
    """Whether another process took the file away; a network file system calls that a stale handle."""
    return isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ESTALE)


def _refused(error: Exception) -> bool:
    """Whether the system would not read it; what is damaged is arrow's own error, which has no number."""
    return isinstance(error, OSError) and error.errno is not None and not _gone(error)


def write_part(output_dir: Path, table: pa.Table, cells: Sequence[str], before: Sequence[Path] = ()) -> Path:
    """A hidden part, whole or not at all. table: of `together`; cells: those whose rows it has, as `held_as` names them, one a
    key; before: parts that its name is to come before."""
    rank = min((int(p.name[:9]) for p in before), default=NEWEST + 1) - 1
    told = {CELLS: json.dumps(cells), WRITTEN: str(time.time_ns())}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(told), buffer, compression="zstd", write_page_checksum=True)
    own = f"{rank:09d}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    path = output_dir / HIDDEN / f"{own}.{zlib.crc32(buffer.getbuffer()):08x}.parquet"
    write_atomic(path, buffer.getvalue())
    with contextlib.suppress(OSError):  # others look at the whole file then
        _as_written(path)
    return path
