"""samples.parquet: one row a cell and sample, as a folder of parquet files that any reader takes for one table.

Whoever scores cells leaves parts of it beside the folder; making tables moves them in, so nothing is copied. A part says in
its metadata which cells it holds: predictions by name, and what they were scored with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from blip2sweep.errors import UserError
from blip2sweep.files import sweep_up, sync_folder
from blip2sweep.results.drops import Scored
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
from blip2sweep.results.sample_rows import SCHEMA, rows_of, together

SMALL_PARTS = 200  # more parts than this of a quarter of ROWS are made into larger ones


def held_as(name: str, scored: str) -> str:
    """How a part names a cell, whose key comes first: one that is scored otherwise (`Scored.scored`) is another one."""
    return f"{name} {scored}"


class SampleWriter:
    """Collects cells and writes a part of them now and then. No lock: parts have names of their own."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self._cells: dict[str, tuple[str, pa.Table]] = {}  # by key: of a cell that ran again the last counts
        self._rows = 0

    def add(self, cell: Scored) -> None:
        self._cells[cell.key] = held_as(cell.name, cell.scored), rows_of(cell)
        self._rows += len(cell.predictions.id)
        if self._rows >= ROWS:
            self.flush()

    def flush(self) -> None:
        """Raises UserError, one line, when the disk refuses."""
        if self._cells:
            cells = list(self._cells.values())
            write_part(self.output_dir, together([t for _, t in cells]), [c for c, _ in cells])
        self._cells, self._rows = {}, 0


def held(output_dir: Path) -> set[str]:
    """The cells that some part holds, shown or not."""
    return {cell for path in parts_of(output_dir) for cell in cells_of(path)}


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
    """Whether anything was removed. A part that lacks columns which others have gets them, empty: readers take the columns of the
    first part for those of all."""
    taken, changed = set[str](), False
    parts = {path: columns_of(path) for path in parts_of(output_dir)}
    wanted = set(SCHEMA.names).union(*parts.values())
    for path, names in parts.items():
        cells = cells_of(path)
        kept = [c for c in cells if counting.get(key_of(c), c) == c != DAMAGED and key_of(c) not in taken]
        taken.update(map(key_of, kept))
        if len(kept) < len(cells) or (names and not wanted <= set(names)):
            changed |= _rewrite(output_dir, [path], kept, wanted)
    return changed


def _merge_small(output_dir: Path) -> bool:
    """A folder of a thousand sweeps with a cell each is slow to read. Whether parts were made into one."""
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
    cells = [c for p in parts for c in cells_of(p)]
    return len(set(map(key_of, cells))) == len(cells) and _rewrite(output_dir, parts, cells)


def _rewrite(output_dir: Path, parts: Sequence[Path], cells: Sequence[str], columns: Collection[str] = ()) -> bool:
    """Parts -> one with these cells only, and with these columns too. False when another process took a part away. Killed in between, it leaves the new
    one, hidden, and the old ones."""
    made = None
    if cells:
        tables = [read_part(p) for p in parts]
        if not all(tables):
            return False
        keys = pa.array(sorted(map(key_of, cells)), pa.string())
        chosen = [t.filter(pc.is_in(t["key"], keys)) for t in tables if t]
        made = write_part(output_dir, together(chosen, columns), cells, parts)
    for path in parts:
        path.unlink(missing_ok=True)
    if made and any(p.parent.name == SHOWN for p in parts):
        _move_in(made)
    return True


def _reveal(output_dir: Path) -> None:
    if not any(parts_of(output_dir)):
        write_part(output_dir, SCHEMA.empty_table(), [])
    for path in parts_of(output_dir):
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
