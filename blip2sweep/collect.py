"""Journals -> tables. Anywhere, any time, idempotent: reads the ledger, writes tables whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from blip2sweep.ledger import Journal, Ledger, no_garbage
from blip2sweep.measured import EVENT, Baselines, Scored, complete, measure
from blip2sweep.propagation import write_propagation
from blip2sweep.records import stem
from blip2sweep.samples import SampleWriter, held, held_as, show
from blip2sweep.store import write_atomic
from blip2sweep.sweep.sweeps import Sweep
from blip2sweep.table import baseline_of, build_table, source_of

LINES = 1000  # that are made durable together


def collect(output_dir: Path, sweep: Sweep | None = None) -> pd.DataFrame:
    """Write table.parquet (all cells), samples.parquet and, for a sweep, its own table. Returns the sweep's rows.

    Only cells that nobody measured yet cost more than reading the ledger.
    """
    with no_garbage():
        return _collect(output_dir, sweep, Ledger(output_dir, measured=True).refresh())


def _collect(output_dir: Path, sweep: Sweep | None, ledger: Ledger) -> pd.DataFrame:
    results = [r for r in ledger.results() if r["predictions"]]
    missing = Missing(output_dir, ledger)
    for result in results:
        missing(result)
    missing.close()
    show(output_dir, missing.counting)
    table = build_table(ledger)
    write_parquet(output_dir / "table.parquet", pa.Table.from_pandas(table, preserve_index=False))
    write_propagation(output_dir, {stem(r["key"], r["predictions"]): r["key"] for r in results})
    if sweep is None:
        return table
    return write_sweep(output_dir, table, sweep)


class Missing:
    """Measures what nobody measured, and writes samples that no part holds. `counting`: the cells whose samples count."""

    def __init__(self, output_dir: Path, ledger: Ledger) -> None:
        self.output_dir, self.ledger = output_dir, ledger
        self.counting: set[str] = set()
        self._held = held(output_dir)
        self._journal, self._samples, self._baselines = (
            Journal(output_dir),
            SampleWriter(output_dir),
            Baselines(output_dir),
        )
        self._lines: list[dict[str, Any]] = []

    def __call__(self, result: dict[str, Any]) -> None:
        """See to one result that has predictions; the ledger at hand then holds what was measured."""
        name, source = stem(result["key"], result["predictions"]), source_of(result, self.ledger)
        measured = self.ledger.attempts[result["key"]].measured
        if source in measured and held_as(name) in self._held:
            self.counting.add(held_as(name))
            return
        cell = Scored(self.output_dir, name)
        if source not in measured:
            measured[source] = self._measure(cell, source, baseline_of(result, self.ledger))
        now = held_as(name, bool(cell.statistics))
        self.counting.add(now)
        if now not in self._held:
            self._samples.add(cell)

    def _measure(self, cell: Scored, source: str, baseline: dict[str, Any] | None) -> dict[str, Any]:
        base, noise = self._baselines(baseline)
        line = {"key": cell.key, "source": source, **measure(cell, base, noise)}
        if complete(cell, base):
            self._lines.append(line)
        if len(self._lines) >= LINES:
            self._write()
        return line

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self._journal.write_many(EVENT, lines)

    def close(self) -> None:
        self._write()
        self._journal.close()
        self._samples.flush()


def write_sweep(output_dir: Path, table: pd.DataFrame, sweep: Sweep) -> pd.DataFrame:
    """Write a sweep's own table, from that of all cells. Returns its rows."""
    own = sweep_rows(table, sweep)
    write_parquet(sweep.folder(output_dir) / "table.parquet", pa.Table.from_pandas(own, preserve_index=False))
    return own


def sweep_rows(table: pd.DataFrame, sweep: Sweep) -> pd.DataFrame:
    """The rows of a sweep, in its order."""
    if table.empty:
        return table
    order = {key: i for i, key in enumerate(sweep.keys)}
    return table[table["key"].isin(order)].sort_values("key", key=lambda k: k.map(order)).reset_index(drop=True)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Whole or not at all."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())
