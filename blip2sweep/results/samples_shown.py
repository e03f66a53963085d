"""What readers of samples.parquet see: the rows of every cell once, from parts that any number of processes leave."""

from __future__ import annotations

import contextlib
import errno
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from blip2sweep.console.remarks import remark
from blip2sweep.errors import UserError
from blip2sweep.files import sweep_up, sync_folder
from blip2sweep.results.predictions import key_of
from blip2sweep.results.samples import CELLS, DAMAGED, HIDDEN, ROWS, SCHEMA, SHOWN, WRITTEN, stamp, write_part

SMALL_PARTS = 200  # more parts than this of a quarter of ROWS are made into larger ones
CHECKSUM = re.compile(r"\.([0-9a-f]{8})\.parquet$")
NAME = re.compile(r"\d{9}-.+\.parquet")


def held(output_dir: Path) -> set[str]:
    """The cells that some part holds, shown or not."""
    return {cell for path in _parts(output_dir) for cell in _cells(path)}


def show(output_dir: Path, counting: Mapping[str, str]) -> None:
    """Have readers see the rows of every cell that any part has, once. counting: {key: how a part names what counts}; what
    else there is of such a key goes. Cells of other keys, which somebody may just have finished, stay as they are.

    No lock: any number of processes may do so at once. Of two parts with a cell the first by name keeps it, and what a cell
    moves to has a name before all it came from and is there before they go: so nobody can take the last copy away. What is
    new is shown when what it replaces is gone: a reader may miss rows for a moment, and sees none twice; of what two processes
    moved at once a reader sees both until one of them looks again. Raises UserError, one line, where nothing may be written.
    """
    try:
        while _settle(output_dir, counting) or _merge_small(output_dir):  # looked at again: others do the same
            pass
        _reveal(output_dir)
        sweep_up([output_dir / HIDDEN])
    except OSError as error:
        where = output_dir / SHOWN
        raise UserError(f"{where}: cannot be written ({error.strerror}); right: a writable output_dir") from error


def _settle(output_dir: Path, counting: Mapping[str, str]) -> bool:
    """Whether anything was removed."""
    taken, changed = set[str](), False
    for path in _parts(output_dir):
        cells = _cells(path)
        kept = [c for c in cells if counting.get(key_of(c), c) == c != DAMAGED and key_of(c) not in taken]
        taken.update(map(key_of, kept))
        if len(kept) < len(cells) or _of_before(path):
            changed |= _rewrite(output_dir, [path], kept)
    return changed


def _merge_small(output_dir: Path) -> bool:
    """A folder of a thousand sweeps with a cell each is slow to read. Whether parts were made into one."""
    parts = list(_parts(output_dir))
    sizes = {p: _n_rows(p) for p in parts} if len(parts) > SMALL_PARTS else {}
    small = [p for p, rows in sizes.items() if rows < ROWS // 4]
    groups, room = [list[Path]()], ROWS
    for path in small if len(small) > SMALL_PARTS else ():
        if sizes[path] > room:
            groups.append([])
            room = ROWS
        groups[-1].append(path)
        room -= sizes[path]
    merged = [_merge(output_dir, group) for group in groups if len(group) > 1]
    return any(merged)


def _merge(output_dir: Path, parts: Sequence[Path]) -> bool:
    cells = [c for p in parts for c in _cells(p)]
    return len(set(map(key_of, cells))) == len(cells) and _rewrite(output_dir, parts, cells)


def _rewrite(output_dir: Path, parts: Sequence[Path], cells: Sequence[str]) -> bool:
    """Parts -> one with these cells only. False when another process took a part away. Killed in between, it leaves the new
    one, hidden, and the old ones."""
    made = None
    if cells:
        tables = [_read(p) for p in parts]
        if not all(tables):
            return False
        keys = pa.array(sorted(map(key_of, cells)), pa.string())
        made = write_part(
            output_dir, pa.concat_tables([t.filter(pc.is_in(t["key"], keys)) for t in tables if t]), cells, parts
        )
    for path in parts:
        path.unlink(missing_ok=True)
    if made and any(p.parent.name == SHOWN for p in parts):
        _move_in(made)
    return True


def _read(path: Path) -> pa.Table | None:
    """The rows of a part that `_cells` found whole; None when another process took it away."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        if set(table.column_names) <= set(SCHEMA.names):
            return _as_today(table)
    except (OSError, pa.ArrowException) as error:
        if _gone(error):
            return None
        if _refused(error):
            raise
    _unwanted(path)
    path.unlink(missing_ok=True)  # without it its cells are written again
    return None


def _of_before(path: Path) -> bool:
    """Whether a part lacks columns that parts have today: readers take the columns of the first part for those of all."""
    try:
        return not set(SCHEMA.names) <= set(pq.read_schema(path).names)
    except (OSError, pa.ArrowException):
        return False  # gone, or damaged, which others see to


def _as_today(table: pa.Table) -> pa.Table:
    """With all columns of SCHEMA, null where a part of before has none."""
    absent = [f for f in SCHEMA if f.name not in table.column_names]
    for field in absent:
        table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(SCHEMA.names).cast(SCHEMA).replace_schema_metadata()


def _reveal(output_dir: Path) -> None:
    if not any(_parts(output_dir)):
        write_part(output_dir, SCHEMA.empty_table(), [])
    for path in _parts(output_dir):
        if path.parent.name == HIDDEN:
            _move_in(path)


def _move_in(path: Path) -> None:
    folder = path.parent.parent / SHOWN
    if folder.is_file():  # of an earlier version
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            folder.unlink()
    folder.mkdir(exist_ok=True)
    with contextlib.suppress(FileNotFoundError):  # another process has just done it
        path.rename(folder / path.name)
        sync_folder(folder)


def _parts(output_dir: Path) -> Iterator[Path]:
    """By name. Looked for where they come from first, so that none is missed on its way; files of others are not parts."""
    folders = [output_dir / HIDDEN, output_dir / SHOWN]
    found = {p.name: p for f in folders if f.is_dir() for p in f.iterdir() if NAME.fullmatch(p.name)}
    return (found[name] for name in sorted(found))


def _cells(path: Path) -> list[str]:
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
            stamp(path)
    return right


def _n_rows(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException):
        return ROWS  # gone or damaged: nothing to merge


def _gone(error: Exception) -> bool:
    """Whether another process took the file away; a network file system calls that a stale handle."""
    return isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ESTALE)


def _refused(error: Exception) -> bool:
    """Whether the system would not read it; what is damaged is arrow's own error, which has no number."""
    return isinstance(error, OSError) and error.errno is not None and not _gone(error)
