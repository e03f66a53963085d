"""Tables on disk. They are written whole, and their metadata says what they were made from, so that no table is made
twice."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from blip2sweep.canonical import digest
from blip2sweep.compression.quantize import METHODS
from blip2sweep.files import write_atomic
from blip2sweep.recipe.part_bits import ROLES
from blip2sweep.recipe.semantics import ROUNDED, SEMANTICS, semantics
from blip2sweep.results.columns import COLUMNS
from blip2sweep.results.drops import MEASURES
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.main_metrics import with_main_metrics
from blip2sweep.results.schema import whole
from blip2sweep.results.score_folders import known_variants, score_folder
from blip2sweep.results.sweeps import Sweep

State = dict[str, object]  # sizes, times and versions of what tables are made from
DICTIONARY = digest([c[:2] for c in COLUMNS])[:8]
MADE_FROM = b"blip2sweep.made_from"  # in the metadata of a table's file


@contextlib.contextmanager
def system_memory() -> Iterator[None]:
    """Let arrow take memory as Python does. Its own pool gives all back to the system at once and asks for it again: of a
    large table half a second."""
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


def is_current(path: Path, output_dir: Path, sweep: Sweep | None) -> bool:
    """Whether a table was made from everything that exists now. Looks at folders and opens no journal."""
    try:
        made = (pq.read_schema(path).metadata or {}).get(MADE_FROM)
    except (OSError, pa.ArrowException):
        return False
    current = state(output_dir)
    return bool(made == (_made_from(current, sweep) if sweep else digest(current)).encode())


def _made_from(current: State, sweep: Sweep) -> str:
    return digest([current, sweep.keys, sweep.scoring] if sweep.scoring else [current, sweep.keys])


def state(output_dir: Path) -> State:
    """What tables are made from: the size of each journal, when predictions and scores last changed, and the versions
    of the rules."""
    with (
        contextlib.suppress(OSError),
        os.scandir(output_dir / "journals") as entries,
    ):  # the ledger reports what is unreadable
        journals = {e.name: e.stat().st_size for e in entries if e.name.endswith(".jsonl")}
        folders = [
            output_dir / "predictions",
            *(score_folder(output_dir, v) for v in ("", *known_variants(output_dir))),
        ]
        changed = [folder.stat().st_mtime_ns for folder in folders if folder.exists()]
        return {
            **journals,
            "changed": changed,
            "sweeps": _sweep_files(output_dir),
            "versions": [SEMANTICS, ROUNDED, {m: semantics([m]) for m in METHODS}, MEASURES, ROLES, DICTIONARY],
        }
    return {}


def _sweep_files(output_dir: Path) -> list[list[object]]:
    """When each sweep's file last changed. Tables name the sweeps of each cell."""
    files = sorted((output_dir / "sweeps").glob("*/sweep.json"))
    return [[path.parent.name, path.stat().st_mtime_ns] for path in files]


def write_sweep(
    output_dir: Path, table: pd.DataFrame, sweep: Sweep, ledger: Ledger, made_from: State | None = None
) -> pd.DataFrame:
    """Write a sweep's own table, selected from that of all cells. Returns its rows. made_from: the `state` before the
    ledger was read."""
    own = sweep_rows(table, sweep)
    fingerprint = "" if made_from is None else _made_from(made_from, sweep)
    write_table(sweep.folder(output_dir) / "table.parquet", own, ledger, fingerprint)
    return own


def write_table(path: Path, table: pd.DataFrame, ledger: Ledger, made_from: str) -> None:
    """Write a table. When the ledger was not read completely, an existing table stays, because it may hold more."""
    if not ledger.unreadable or not path.exists():
        write_parquet(path, whole(as_arrow(table)), made_from)


def as_arrow(table: pd.DataFrame) -> pa.Table:
    """The table for parquet. A column in which versions wrote values of different types becomes texts."""
    try:
        return pa.Table.from_pandas(table, preserve_index=False)
    except (pa.ArrowException, OverflowError):
        kinds = {c: {type(v) for v in table[c] if v is not None and v == v} for c in table if table[c].dtype == object}
        texts = {
            str(c): [v if v is None or v != v else str(v) for v in table[c]] for c, k in kinds.items() if len(k) > 1
        }
        return pa.Table.from_pandas(table.assign(**texts), preserve_index=False)


def sweep_rows(table: pd.DataFrame, sweep: Sweep) -> pd.DataFrame:
    """The rows of a sweep's keys, in the sweep's order, with the main metric that the sweep wants."""
    if table.empty:
        return table
    order = {key: i for i, key in enumerate(sweep.keys)}
    places = table["key"].map(order).to_numpy(float)  # NaN for keys of others
    of_sweep = np.argsort(places, kind="stable")[: np.count_nonzero(~np.isnan(places))]
    rows = table.iloc[of_sweep].reset_index(drop=True)
    return with_main_metrics(rows, {key: asked["main_metric"] for key, asked in sweep.asked().items()})


def write_parquet(path: Path, table: pa.Table, made_from: str = "") -> None:
    """Write the whole file or nothing. made_from: the digest that `is_current` compares."""
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), MADE_FROM: made_from})
    repeated = [
        f.name for f in table.schema if not pa.types.is_floating(f.type)
    ]  # a dictionary of measured numbers is longer
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=repeated, write_page_checksum=True)
    write_atomic(path, memoryview(buffer.getvalue()))
