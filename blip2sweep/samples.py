"""samples.parquet: one row a cell and sample, as a folder of parquet files that any reader takes for one table.

Whoever scores cells adds a part of them, hidden by a leading dot; making tables shows the parts whose cells count, without
copying them. A part says in its metadata which cells it holds: predictions by name, and the scorers they were scored with.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import uuid
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from blip2sweep.errors import UserError
from blip2sweep.measured import SCORERS, Scored
from blip2sweep.metrics import METRICS
from blip2sweep.store import write_atomic

FOLDER = "samples.parquet"
ROWS = 200_000  # of a part, about
SMALL_PARTS = 64  # more parts than this of a quarter of ROWS are made into larger ones
PER_SAMPLE = ("cider", "meteor", "rouge_l", "vqa_accuracy")  # the metrics that mean something for a single sample
SCHEMA = pa.schema(
    [
        *(("key", pa.string()), ("id", pa.int64()), ("image_id", pa.int64()), ("text", pa.string())),
        *(("tokens", pa.int64()), ("nll_sum", pa.float64()), ("nll_tokens", pa.int64())),
        *((name, pa.float64()) for name in PER_SAMPLE),
    ]
)
CELLS = b"cells"
NEWEST = 500_000_000  # the rank of a part that was made of none


def held_as(name: str, scored: bool = True) -> str:
    """How a part names a cell: one that is scored, or scored otherwise, later is another one."""
    return f"{name} {SCORERS if scored else ''}"


class SampleWriter:
    """Collects cells and writes a hidden part of them now and then. No lock: parts have names of their own."""

    def __init__(self, output_dir: Path) -> None:
        self.folder = output_dir / FOLDER
        self._cells: dict[str, tuple[str, pa.Table]] = {}  # by key: of a cell that ran again the last counts
        self._rows = 0

    def add(self, cell: Scored) -> None:
        self._cells[cell.key] = held_as(cell.name, bool(cell.statistics)), _rows(cell)
        self._rows += len(cell.predictions.id)
        if self._rows >= ROWS:
            self.flush()

    def flush(self) -> None:
        """Raises UserError, one line, when the disk refuses."""
        cells, self._cells, self._rows = list(self._cells.values()), {}, 0
        if cells:
            write_part(self.folder, pa.concat_tables([t for _, t in cells]), [c for c, _ in cells])


def _rows(cell: Scored) -> pa.Table:
    said, n = cell.predictions, len(cell.predictions.id)
    scores: dict[str, Any] = {}
    for name in PER_SAMPLE:
        statistics = cell.statistics.get(METRICS[name].statistic)
        scores[name] = [None] * n if statistics is None else METRICS[name].finish(statistics)
    return pa.table({"key": [cell.key] * n, **said.__dict__, **scores}, schema=SCHEMA)


def held(output_dir: Path) -> set[str]:
    """The cells that some part holds."""
    return {cell for path in _parts(output_dir / FOLDER) for cell in _cells(path)}


def show(output_dir: Path, wanted: Collection[str]) -> None:
    """Make the folder hold the rows of the wanted cells that any part has, each once, and nothing else.

    No lock: any number of processes may do so at once. Of two parts with a cell the first by name keeps it, and what a cell
    moves to has a name before all it came from and is there before they go: so nobody can take the last copy away. What two
    have moved at once is there twice, until one of them looks again. Raises UserError, one line, where the folder cannot be
    written.
    """
    folder = output_dir / FOLDER
    try:
        while _settle(folder, wanted) or _merge_small(folder):  # looked at again: somebody may have made the same
            pass
        if not any(_parts(folder)):
            _reveal(write_part(folder, SCHEMA.empty_table(), []))
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); right: a writable output_dir") from error


def _settle(folder: Path, wanted: Collection[str]) -> bool:
    """Whether a part was made anew."""
    taken, changed = set[str](), False
    for path in _parts(folder):
        cells = _cells(path)
        kept = [c for c in cells if c in wanted and c not in taken]
        taken.update(kept)
        if len(kept) < len(cells):
            changed |= _rewrite(folder, [path], kept)
        else:
            _reveal(path)
    return changed


def _merge_small(folder: Path) -> bool:
    """A folder of a thousand sweeps with a cell each is slow to read. Whether a part was made."""
    parts = [p for p in _parts(folder) if p == _shown(p)]
    if len(parts) <= SMALL_PARTS:
        return False
    try:
        small = [p for p in parts if pq.read_metadata(p).num_rows < ROWS // 4]
    except FileNotFoundError:  # another process is just doing it
        return False
    cells = [c for p in small for c in _cells(p)]
    return len(small) > SMALL_PARTS and len(set(cells)) == len(cells) and _rewrite(folder, small, cells)


def _rewrite(folder: Path, parts: Sequence[Path], cells: Sequence[str]) -> bool:
    """Parts -> one with these cells only; False when another process took a part away. Killed in between, it leaves the new
    one, hidden, and the old ones."""
    keys = pa.array(sorted(map(_key, cells)), pa.string())
    made = None
    if cells:
        try:
            tables = [pq.read_table(p).replace_schema_metadata() for p in parts]
        except FileNotFoundError:
            return False
        table = pa.concat_tables([t.filter(pc.is_in(t["key"], keys)) for t in tables])
        made = write_part(folder, table, cells, before=parts)
    for path in parts:
        path.unlink(missing_ok=True)
    if made:
        _reveal(made)
    return made is not None


def _reveal(path: Path) -> None:
    if path != _shown(path):
        with contextlib.suppress(FileNotFoundError):  # another process has just done it
            path.rename(_shown(path))


def _parts(folder: Path) -> Iterator[Path]:
    """Shown and hidden ones, in an order that showing one does not change."""
    paths = folder.glob("*.parquet") if folder.is_dir() else []
    return iter(sorted(paths, key=lambda p: _shown(p).name))


def _key(cell: str) -> str:
    """Of a cell as a part names it."""
    return cell.partition("-")[0]


def _shown(path: Path) -> Path:
    return path.with_name(path.name.removeprefix("."))


def _cells(path: Path) -> list[str]:
    """Of a part; one that nobody wants for a file that is no part of ours, none when it is gone."""
    try:
        found: list[str] = json.loads((pq.read_schema(path).metadata or {})[CELLS])
    except FileNotFoundError:
        return []
    except (pa.ArrowInvalid, KeyError, ValueError):
        return ["damaged"]
    return found


def _rank(path: Path) -> int:
    """What names are ordered by."""
    number = _shown(path).name.partition("-")[0]
    return int(number) if number.isdigit() else NEWEST


def write_part(folder: Path, table: pa.Table, cells: Sequence[str], before: Sequence[Path] = ()) -> Path:
    """A hidden part, whole or not at all. table: of SCHEMA; cells: those whose rows it has, as `held_as` names them; before:
    parts that its name is to come before."""
    if folder.is_file():  # one file, from an earlier version
        folder.unlink()
    rank = min(map(_rank, before), default=NEWEST + 1) - 1
    path = folder / f".{rank:09d}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.parquet"
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({CELLS: json.dumps(cells)}), buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())
    return path
