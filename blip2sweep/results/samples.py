"""samples.parquet: one row a cell and sample, as a folder of parquet files that any reader takes for one table.

Whoever scores cells leaves parts of it beside the folder; making tables moves them in (`samples_shown.py`), so nothing is
copied. A part says in its metadata which cells it holds: predictions by name, and what they were scored with.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import time
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blip2sweep.files import write_atomic
from blip2sweep.metrics import METRICS
from blip2sweep.results.drops import Scored
from blip2sweep.rows import Id

SHOWN, HIDDEN = "samples.parquet", ".samples"  # folders: what readers see, and what is to come
ROWS = 200_000  # of a part, about
PER_SAMPLE = ("cider", "meteor", "rouge_l", "vqa_accuracy")  # the metrics that mean something for a single sample
# Parts share one schema whatever their tasks call their samples: of ids that are texts `id` and `image_id` are null, and
# `id_text`, `image_id_text` have them; of numbers it is the other way round.
SCHEMA = pa.schema(
    [
        *(("key", pa.string()), ("id", pa.int64()), ("image_id", pa.int64()), ("text", pa.string())),
        *(("tokens", pa.int64()), ("nll_sum", pa.float64()), ("nll_tokens", pa.int64())),
        *((name, pa.float64()) for name in PER_SAMPLE),
        *((f"{name}_text", pa.string()) for name in ("id", "image_id")),
    ]
)
CELLS, WRITTEN, DAMAGED = b"cells", b"written", "damaged"
NEWEST = 500_000_000  # the rank of a part that was made of none; see `samples_shown.show`


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
        self._cells[cell.key] = held_as(cell.name, cell.scored), _rows(cell)
        self._rows += len(cell.predictions.id)
        if self._rows >= ROWS:
            self.flush()

    def flush(self) -> None:
        """Raises UserError, one line, when the disk refuses."""
        if self._cells:
            cells = list(self._cells.values())
            write_part(self.output_dir, pa.concat_tables([t for _, t in cells]), [c for c, _ in cells])
        self._cells, self._rows = {}, 0


def _rows(cell: Scored) -> pa.Table:
    said, n = cell.predictions, len(cell.predictions.id)
    scores: dict[str, object] = {}
    for name in PER_SAMPLE:
        statistics = cell.statistics.get(METRICS[name].statistic)
        scores[name] = [None] * n if statistics is None else METRICS[name].finish(statistics)
    ids = {**_ids("id", said.id), **_ids("image_id", said.image_id)}
    return pa.table({"key": [cell.key] * n, **said.__dict__, **scores, **ids}, schema=SCHEMA)


def _ids(name: str, ids: Sequence[Id]) -> dict[str, Sequence[Id | None]]:
    texts = [i if isinstance(i, str) else None for i in ids]
    return {name: [None if isinstance(i, str) else i for i in ids], f"{name}_text": texts}


def write_part(output_dir: Path, table: pa.Table, cells: Sequence[str], before: Sequence[Path] = ()) -> Path:
    """A hidden part, whole or not at all. table: of SCHEMA; cells: those whose rows it has, as `held_as` names them, one a
    key; before: parts that its name is to come before."""
    rank = min((int(p.name[:9]) for p in before), default=NEWEST + 1) - 1
    told = {CELLS: json.dumps(cells), WRITTEN: str(time.time_ns())}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(told), buffer, compression="zstd", write_page_checksum=True)
    own = f"{rank:09d}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    path = output_dir / HIDDEN / f"{own}.{zlib.crc32(buffer.getbuffer()):08x}.parquet"
    write_atomic(path, buffer.getvalue())
    with contextlib.suppress(OSError):  # others look at the whole file then
        stamp(path)
    return path


def stamp(path: Path) -> None:
    """Have its time say that nobody touched it since it was written."""
    written = int((pq.read_schema(path).metadata or {}).get(WRITTEN, 0))
    os.utime(path, ns=(written, written))
