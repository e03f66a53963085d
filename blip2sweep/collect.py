"""Journals -> tables. Anywhere, any time, idempotent: reads the ledger, writes tables whole."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from blip2sweep.ledger import Ledger
from blip2sweep.propagation import write_propagation
from blip2sweep.records import read_predictions, read_statistics, stem
from blip2sweep.store import write_atomic
from blip2sweep.sweep.sweeps import Sweep
from blip2sweep.table import build_table, sample_rows

EMPTY = pa.table({"key": pa.array([], pa.string())})


def collect(output_dir: Path, sweep: Sweep | None = None) -> pd.DataFrame:
    """Write table.parquet (all cells), samples.parquet and, for a sweep, its own table. Returns the sweep's rows.

    What an earlier call measured is kept: only new cells cost more than reading the ledger.
    """
    ledger = Ledger(output_dir).refresh()
    path = output_dir / "table.parquet"
    table, fresh = build_table(output_dir, ledger, read_known(path))
    write_samples(output_dir, ledger, fresh)  # before the table: a table that lacks a cell has it measured again
    write_parquet(path, pa.Table.from_pandas(table, preserve_index=False))
    write_propagation(
        output_dir, {stem(r["key"], r["predictions"]): r["key"] for r in ledger.results() if r["predictions"]}
    )
    if sweep is None:
        return table
    return write_sweep(output_dir, table, sweep)


def write_sweep(output_dir: Path, table: pd.DataFrame, sweep: Sweep) -> pd.DataFrame:
    """Write a sweep's own table, from that of all cells. Returns its rows."""
    own = sweep_rows(table, sweep)
    write_parquet(sweep.folder(output_dir) / "table.parquet", pa.Table.from_pandas(own, preserve_index=False))
    return own


def read_known(path: Path) -> pd.DataFrame | None:
    """The table of an earlier call; None when there is none, or not a whole one, or its samples are gone."""
    try:
        return pd.read_parquet(path) if (path.parent / "samples.parquet").exists() else None
    except (OSError, ValueError):
        return None


def sweep_rows(table: pd.DataFrame, sweep: Sweep) -> pd.DataFrame:
    """The rows of a sweep, in its order."""
    if table.empty:
        return table
    order = {key: i for i, key in enumerate(sweep.keys)}
    return table[table["key"].isin(order)].sort_values("key", key=lambda k: k.map(order)).reset_index(drop=True)


def write_samples(output_dir: Path, ledger: Ledger, fresh: Collection[str]) -> None:
    """One row per cell and sample; those of cells that were not measured anew stay as they are."""
    path = output_dir / "samples.parquet"
    if path.exists() and not fresh:
        return
    kept = []
    if path.exists() and len(fresh) < len(ledger.attempts):
        old = pq.read_table(path)
        kept = [old.filter(pc.invert(pc.is_in(old["key"], pa.array(sorted(fresh), pa.string()))))]
    tables = [t for t in [*kept, *_samples(output_dir, ledger, fresh)] if len(t)]
    write_parquet(path, pa.concat_tables(tables, promote_options="default") if tables else EMPTY)


def _samples(output_dir: Path, ledger: Ledger, keys: Collection[str]) -> Iterator[pa.Table]:
    for key, attempts in ledger.attempts.items():
        if key in keys and attempts.result and attempts.result["predictions"]:
            name = stem(key, attempts.result["predictions"])
            yield pa.table(sample_rows(key, read_predictions(output_dir, name), read_statistics(output_dir, name)))


def write_parquet(path: Path, table: pa.Table) -> None:
    """Whole or not at all."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())
