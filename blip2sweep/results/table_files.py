"""Tables on disk: written whole, with what they were made from in their metadata, so that nothing is made twice."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from blip2sweep.canonical import digest
from blip2sweep.compression.quantize import METHODS
from blip2sweep.files import write_atomic
from blip2sweep.recipe.part_bits import ROLES
from blip2sweep.recipe.semantics import SEMANTICS, semantics
from blip2sweep.results.drops import MEASURES
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.sweeps import Sweep

State = dict[str, object]  # what tables are made from
MADE_FROM = b"blip2sweep.made_from"  # in the metadata of a table's file


def is_current(path: Path, output_dir: Path, sweep: Sweep | None) -> bool:
    """Whether a table was made from all that is there: costs a look at the folders, and opens no journal."""
    try:
        made = (pq.read_schema(path).metadata or {}).get(MADE_FROM)
    except (OSError, pa.ArrowException):
        return False
    there = state(output_dir)
    return bool(made == digest([there, sweep.keys] if sweep else there).encode())


def state(output_dir: Path) -> State:
    """What tables are made from: the size of every journal, when predictions and scores last came or went, and the versions of
    what counts."""
    with (
        contextlib.suppress(OSError),
        os.scandir(output_dir / "journals") as entries,
    ):  # the ledger tells what is not readable
        journals = {e.name: e.stat().st_size for e in entries if e.name.endswith(".jsonl")}
        changed = [p.stat().st_mtime_ns for f in ("predictions", "scores") if (p := output_dir / f).exists()]
        return {
            **journals,
            "changed": changed,
            "versions": [SEMANTICS, {m: semantics([m]) for m in METHODS}, MEASURES, ROLES],
        }
    return {}


def write_sweep(
    output_dir: Path, table: pd.DataFrame, sweep: Sweep, ledger: Ledger, there: State | None = None
) -> pd.DataFrame:
    """Write a sweep's own table, from that of all cells. Returns its rows. there: the `state` it was made from."""
    own = sweep_rows(table, sweep)
    made_from = "" if there is None else digest([there, sweep.keys])
    write_table(sweep.folder(output_dir) / "table.parquet", own, ledger, made_from)
    return own


def write_table(path: Path, table: pd.DataFrame, ledger: Ledger, made_from: str) -> None:
    """A table, unless there is one which may know more than the ledger as it can be read."""
    if not ledger.unreadable or not path.exists():
        write_parquet(path, as_arrow(table), made_from)


def as_arrow(table: pd.DataFrame) -> pa.Table:
    """Columns that rows of several versions filled with different kinds of things become texts."""
    try:
        return pa.Table.from_pandas(table, preserve_index=False)
    except (pa.ArrowException, OverflowError):
        kinds = {c: {type(v) for v in table[c] if v is not None and v == v} for c in table if table[c].dtype == object}
        texts = {
            str(c): [v if v is None or v != v else str(v) for v in table[c]] for c, k in kinds.items() if len(k) > 1
        }
        return pa.Table.from_pandas(table.assign(**texts), preserve_index=False)


def sweep_rows(table: pd.DataFrame, sweep: Sweep) -> pd.DataFrame:
    """The rows of a sweep, in its order."""
    if table.empty:
        return table
    order = {key: i for i, key in enumerate(sweep.keys)}
    return table[table["key"].isin(order)].sort_values("key", key=lambda k: k.map(order)).reset_index(drop=True)


def write_parquet(path: Path, table: pa.Table, made_from: str = "") -> None:
    """Whole or not at all. made_from: what `is_current` compares."""
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), MADE_FROM: made_from})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    write_atomic(path, buffer.getvalue())
