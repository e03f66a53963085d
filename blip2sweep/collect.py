"""Journals -> tables. Anywhere, any time, idempotent: reads the ledger, writes tables whole."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from blip2sweep.canonical import digest
from blip2sweep.cell import SEMANTICS, semantics
from blip2sweep.ledger import Journal, Ledger, no_garbage
from blip2sweep.measured import EVENT, SCORERS, Baselines, Scored, complete, measure
from blip2sweep.methods import METHODS
from blip2sweep.propagation import write_propagation
from blip2sweep.records import stem
from blip2sweep.samples import SampleWriter, held, held_as, show
from blip2sweep.store import write_atomic
from blip2sweep.sweep.sweeps import Sweep
from blip2sweep.table import baseline_of, build_table, source_of

State = dict[str, Any]
MADE_FROM = b"blip2sweep.made_from"  # in the metadata of a table's file
LINES = 1000  # that are made durable together


def collect(
    output_dir: Path, sweep: Sweep | None = None, anew: Collection[str] = (), ledger: Ledger | None = None
) -> pd.DataFrame:
    """Write table.parquet (all cells), samples.parquet and, for a sweep, its own table. Returns the sweep's rows.

    Only cells that nobody measured yet cost more than reading the ledger. anew: keys of cells that were just scored in another
    way, so that what is known of them, and of cells beside such a baseline, does not count. ledger: of all cells and what was
    measured, where somebody has read it already.
    """
    with no_garbage():
        there = state(output_dir)
        return _collect(output_dir, sweep, (ledger or Ledger(output_dir, measured=True)).refresh(), anew, there)


def _collect(
    output_dir: Path, sweep: Sweep | None, ledger: Ledger, anew: Collection[str], there: State
) -> pd.DataFrame:
    """there: the `state` before the ledger was read; what we write ourselves is known."""
    results = [r for r in ledger.results() if r["predictions"]]
    missing = Missing(output_dir, ledger, anew)
    for result in results:
        missing(result)
    there |= missing.close()
    show(output_dir, missing.counting)
    table = build_table(ledger)
    write_parquet(output_dir / "table.parquet", pa.Table.from_pandas(table, preserve_index=False), digest(there))
    write_propagation(output_dir, {stem(r["key"], r["predictions"]): r["key"] for r in results})
    if sweep is None:
        return table
    return write_sweep(output_dir, table, sweep, there)


class Missing:
    """Measures what nobody measured, and writes samples that no part holds. counting: {key: how a part names the cell}."""

    def __init__(self, output_dir: Path, ledger: Ledger, anew: Collection[str]) -> None:
        self.output_dir, self.ledger, self.anew = output_dir, ledger, set(anew)
        self.counting: dict[str, str] = {}
        self._held = held(output_dir)
        self._journal, self._samples = Journal(output_dir), SampleWriter(output_dir)
        self._baselines = Baselines(output_dir, waiting=False)
        self._lines: list[dict[str, Any]] = []

    def __call__(self, result: dict[str, Any]) -> None:
        """See to one result that has predictions; the ledger at hand then holds what was measured."""
        name, source = stem(result["key"], result["predictions"]), source_of(result, self.ledger)
        measured = self.ledger.attempts[result["key"]].measured
        if self.anew and not self.anew.isdisjoint((result["key"], result["columns"]["baseline"])):
            measured.pop(source, None)
        if source in measured:
            self.counting[result["key"]] = held_as(name, measured[source]["scored"])
            if self.counting[result["key"]] in self._held:
                return
        cell = Scored(self.output_dir, name)
        self.counting[cell.key] = held_as(name, cell.scored)
        if self.counting[cell.key] not in self._held:
            self._samples.add(cell)
        if source not in measured or measured[source]["scored"] != cell.scored:
            measured[source] = self._measure(cell, source, baseline_of(result, self.ledger))

    def _measure(self, cell: Scored, source: str, baseline: dict[str, Any] | None) -> dict[str, Any]:
        base = self._baselines(baseline)
        line = {"time": time.time(), "key": cell.key, "source": source, **measure(cell, base)}
        if complete(cell, base):
            self._lines.append(line)
        if len(self._lines) >= LINES:
            self._write()
        return line

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self._journal.write_many(EVENT, lines)

    def close(self) -> State:
        """The journal that this wrote, if any."""
        self._write()
        self._journal.close()
        self._samples.flush()
        path = self._journal.path
        return {path.name: path.stat().st_size} if path.exists() else {}


def looked_up(output_dir: Path, sweep: Sweep | None = None) -> pd.DataFrame:
    """The rows as the journals have them now, where nothing may be written. What nobody measured yet has no metrics."""
    table = build_table(Ledger(output_dir, measured=True).refresh())
    return table if sweep is None else sweep_rows(table, sweep)


def is_current(path: Path, output_dir: Path, sweep: Sweep | None) -> bool:
    """Whether a table was made from all that is there: costs a look at the folders, and opens no journal."""
    try:
        made = (pq.read_schema(path).metadata or {}).get(MADE_FROM)
    except (OSError, pa.ArrowException):
        return False
    there = state(output_dir)
    return bool(made == digest([there, sweep.keys] if sweep else there).encode())


def state(output_dir: Path) -> State:
    """What tables are made from: the size of every journal, when the newest score came, and the versions of what counts."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(output_dir / "journals") as entries:
        journals = {e.name: e.stat().st_size for e in entries if e.name.endswith(".jsonl")}
        scores = [p.stat().st_mtime_ns for p in (output_dir / "scores",) if p.exists()]
        return {**journals, "scores": scores, "versions": [SEMANTICS, {m: semantics([m]) for m in METHODS}, SCORERS]}
    return {}


def write_sweep(output_dir: Path, table: pd.DataFrame, sweep: Sweep, there: State | None = None) -> pd.DataFrame:
    """Write a sweep's own table, from that of all cells. Returns its rows. there: the `state` it was made from."""
    own = sweep_rows(table, sweep)
    made_from = "" if there is None else digest([there, sweep.keys])
    write_parquet(
        sweep.folder(output_dir) / "table.parquet", pa.Table.from_pandas(own, preserve_index=False), made_from
    )
    return own


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
    pq.write_table(table, buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())
