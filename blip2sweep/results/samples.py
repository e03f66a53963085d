"""samples.parquet: one row for each cell and sample, in a folder of parquet files that readers take for one table.

Whoever scores cells writes parts of it into a hidden folder. Making tables moves them in, so that no row is copied. The
metadata of a part lists the cells it holds, by entry name: the name of their predictions and the digest of their
scorers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc

from blip2sweep.errors import UserError
from blip2sweep.files import sweep_up, sync_folder
from blip2sweep.results.predictions import key_of
from blip2sweep.results.sample_parts import (
    DAMAGED,
    HIDDEN,
    ROWS,
    SHOWN,
    cells_of,
    columns_of,
    parts_of,
    read_part,
    rows_in,
    write_part,
)
from blip2sweep.results.sample_questions import Questions
from blip2sweep.results.sample_rows import SCHEMA, rows_of, schema_of, together, types_of
from blip2sweep.results.scored import Scored

SMALL_PARTS = 200  # when more parts than this have under a quarter of ROWS, they are merged


def entry_name(name: str, scored: str) -> str:
    """The name by which a part lists a cell; the key comes first. A cell that is scored differently (`Scored.scored`)
    has another one."""
    return f"{name} {scored}"


class SampleWriter:
    """Collects the samples of cells and writes a part at every ROWS rows. Needs no lock, because names of parts are
    unique."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self._cells: dict[
            str, tuple[str, pa.Table]
        ] = {}  # {key: (entry name, rows)}; of a cell that ran again the last counts
        self._rows = 0

    def add(self, cell: Scored, questions: Questions | None = None) -> None:
        """Add a cell's samples. questions: of its task, where it is known. Raises as `flush` does."""
        self._cells[cell.key] = entry_name(cell.name, cell.scored), rows_of(cell, questions)
        self._rows += len(cell.predictions.id)
        if self._rows >= ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was added. Raises UserError, one line, when the disk refuses."""
        if self._cells:
            cells = list(self._cells.values())
            write_part(self.output_dir, together([t for _, t in cells]), [c for c, _ in cells])
        self._cells, self._rows = {}, 0


def contents(output_dir: Path) -> set[str]:
    """The entry names of all cells in any part, published or not."""
    return {cell for path in parts_of(output_dir) for cell in cells_of(path)}


def publish(output_dir: Path, entries: Mapping[str, str]) -> None:
    """Make the samples of every cell visible to readers, once each.

    entries: {key: entry name that counts}. Other entries of such a key are removed. Cells of other keys stay as they
    are, because another process may just have finished them.

    Needs no lock; any number of processes may publish at once. When two parts hold the same cell, the first by name
    keeps it. A merged part has a name before those of all parts it replaces, and exists before they are removed, so
    that no process can remove the last copy. A new part becomes visible after the parts it replaces are gone: a reader
    may miss rows for a moment, and sees none twice. Only when two processes merge the same parts at once does a reader
    see both results, until one of them publishes again.

    Raises UserError, one line, when the folder cannot be written.
    """
    try:
        while _settle(output_dir, entries) or _merge_small(
            output_dir
        ):  # repeated, because other processes change parts too
            pass
        _reveal(output_dir)
        sweep_up([output_dir / HIDDEN])
    except OSError as error:
        where = output_dir / SHOWN
        raise UserError(f"{where}: cannot be written ({error.strerror}); right: a writable output_dir") from error


def _settle(output_dir: Path, entries: Mapping[str, str]) -> bool:
    """Remove entries that do not count or are held twice. True when something changed. A part that lacks columns of
    other parts, or has them in another type, gets them, with nulls, because readers take the columns of the first part for those of all."""
    taken, changed = set[str](), False
    parts = {path: columns_of(path) for path in parts_of(output_dir)}
    wanted = types_of([schema_of(types_of(list(parts.values())))])
    for path, columns in parts.items():
        cells = cells_of(path)
        keys = [key_of(c) for c in cells]
        own = zip(keys, cells, strict=True)
        keep = [c for key, c in own if entries.get(key, c) == c != DAMAGED and key not in taken]
        taken.update(keys if len(keep) == len(cells) else map(key_of, keep))
        if len(keep) < len(cells) or (len(columns) and types_of([columns]) != wanted):
            changed |= _rewrite(output_dir, [path], keep, wanted)
    return changed


def _merge_small(output_dir: Path) -> bool:
    """Merge small parts, because a folder with a part for each of a thousand sweeps is slow to read. True when parts
    were merged."""
    parts = list(parts_of(output_dir))
    sizes = {p: rows_in(p) for p in parts} if len(parts) > SMALL_PARTS else {}
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
    """Merge these parts, unless a key is in two of them. True when it was done."""
    cells = [c for p in parts for c in cells_of(p)]
    return len(set(map(key_of, cells))) == len(cells) and _rewrite(output_dir, parts, cells)


def _rewrite(
    output_dir: Path,
    parts: Sequence[Path],
    cells: Sequence[str],
    columns: Mapping[str, pa.DataType] = MappingProxyType({}),
) -> bool:
    """Replace parts by one that holds only these cells, and has at least these columns. False when another process
    removed a part. A process that is killed in between leaves both the new part, hidden, and the old ones."""
    replacement = None
    if cells:
        tables = [read_part(p) for p in parts]
        if not all(tables):
            return False
        keys = pa.array(sorted(map(key_of, cells)), pa.string())
        chosen = [t.filter(pc.is_in(t["key"], keys)) for t in tables if t]
        replacement = write_part(output_dir, together(chosen, columns), cells, parts)
    for path in parts:
        path.unlink(missing_ok=True)
    if replacement and any(p.parent.name == SHOWN for p in parts):
        _move_in(replacement)
    return True


def _reveal(output_dir: Path) -> None:
    """Move every hidden part in. A folder without any part gets one without rows, so that readers find the schema."""
    if not any(parts_of(output_dir)):
        write_part(output_dir, SCHEMA.empty_table(), [])
    for path in parts_of(output_dir):
        if path.parent.name == HIDDEN:
            _move_in(path)


def _move_in(path: Path) -> None:
    """Move a part into the folder that readers see."""
    folder = path.parent.parent / SHOWN
    if folder.is_file():  # an earlier version wrote one file
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            folder.unlink()
    folder.mkdir(exist_ok=True)
    with contextlib.suppress(FileNotFoundError):  # another process has just done it
        path.rename(folder / path.name)
        sync_folder(folder)
