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
from blip2sweep.compression.quantize import METHODS
from blip2sweep.console.remarks import many, remark, some
from blip2sweep.errors import UserError
from blip2sweep.files import sweep_up, write_atomic
from blip2sweep.recipe.part_bits import ROLES
from blip2sweep.recipe.semantics import SEMANTICS, semantics
from blip2sweep.results.drops import EVENT, MEASURES, Baseline, Baselines, Scored, complete, measure
from blip2sweep.results.ledger import Attempts, Journal, Ledger, attempt_id, no_garbage
from blip2sweep.results.predictions import stem
from blip2sweep.results.propagation import write_propagation
from blip2sweep.results.sample_parts import DAMAGED
from blip2sweep.results.samples import SampleWriter, held, held_as, show
from blip2sweep.results.sweeps import Sweep, list_sweeps
from blip2sweep.results.table import baseline_of, build_table, source_of
from blip2sweep.tasks.task import load_outside

State = dict[str, Any]
MADE_FROM = b"blip2sweep.made_from"  # in the metadata of a table's file
LINES = 1000  # that are made durable together
WRITTEN = ("journals", "predictions", "scores", "layers", "propagation")  # folders in which killed writers leave rests


def collect(
    output_dir: Path, sweep: Sweep | None = None, anew: Collection[str] = (), ledger: Ledger | None = None
) -> pd.DataFrame:
    """Write table.parquet (all cells), samples.parquet and, for a sweep, its own table. Returns the sweep's rows.

    Only cells that nobody measured yet cost more than reading the ledger. Those whose predictions are gone or damaged are named
    and left out. Where somebody's part of the ledger cannot be read, tables that are there stay as they are: they may know more.
    anew: keys of cells that were just scored in another way, so that what is known of them, and of cells beside such a
    baseline, does not count. ledger: of all cells and what was measured, where somebody has read it already.
    """
    load_outside()
    with no_garbage():
        there = state(output_dir)
        return _collect(output_dir, sweep, (ledger or Ledger(output_dir, measured=True)).refresh(), anew, there)


def _collect(
    output_dir: Path, sweep: Sweep | None, ledger: Ledger, anew: Collection[str], there: State
) -> pd.DataFrame:
    """there: the `state` before the ledger was read; what we write ourselves is known."""
    tell_open(output_dir, ledger)
    missing = Missing(output_dir, ledger, anew)
    missing.all()
    there |= missing.close()
    if not ledger.unreadable:
        show(output_dir, missing.counting)
    table = build_table(ledger)
    write_table(output_dir / "table.parquet", table, ledger, digest(there))
    results = [r for r in ledger.results() if r["predictions"]]
    write_propagation(output_dir, {stem(r["key"], r["predictions"]): r["key"] for r in results})
    sweep_up([output_dir, *(output_dir / f for f in WRITTEN), *(output_dir / "sweeps").glob("*")])
    if sweep is None:
        return table
    return write_sweep(output_dir, table, sweep, ledger, there)


def tell_open(output_dir: Path, ledger: Ledger) -> None:
    """Say of which cells what is shown may not be the last word."""
    asked = {k: set(attempts) for s in list_sweeps(output_dir) for k, attempts in s.rerun.items()}
    known = ledger.attempts.items()
    old = [k for k, a in known if k in asked and a.results and a.results <= asked[k]]
    if old:
        remark(f"{many(len(old), 'cell')} shown with the result that --rerun is to replace: the ledger has no newer one "
               f"({some(old)})")  # fmt: skip
    open_ = [(k, a) for k, a in known if not a.starts.keys() <= a.ended and a.result and "starts" in a.result]
    later = [k for k, a in open_ if _unknown(a)]
    if later:
        remark(f"{many(len(later), 'cell')} with an attempt that has not ended and that the result shown does not know "
               f"({some(later)})")  # fmt: skip


def _unknown(attempts: Attempts) -> bool:
    """Whether an attempt is open that the result knew nothing of."""
    assert attempts.result is not None
    return bool(set(map(attempt_id, attempts.open)) - set(attempts.result["starts"]))


class Missing:
    """Measures what nobody measured, and writes samples that no part holds. counting: {key: how a part names the cell}."""

    def __init__(self, output_dir: Path, ledger: Ledger, anew: Collection[str]) -> None:
        self.output_dir, self.ledger, self.anew = output_dir, ledger, set(anew)
        self.counting: dict[str, str] = {}
        self._held = held(output_dir)
        self._journal, self._samples = Journal(output_dir), SampleWriter(output_dir)
        self._baselines = Baselines(output_dir, waiting=False)
        self._lines: list[dict[str, Any]] = []
        self._damaged: set[str] = set()

    def all(self) -> None:
        """See to every result that has predictions; again where a baseline turned out to be damaged, for its cells are then
        measured without one."""
        # Samples of cells whose predictions are gone do not stay: they come back with a new result.
        self.counting |= {key: DAMAGED for key, a in self.ledger.attempts.items() if a.gone and not a.result}
        before = -1
        while before < len(self._damaged):
            before = len(self._damaged)
            for result in [r for r in self.ledger.results() if r["predictions"]]:
                self(result)

    def __call__(self, result: dict[str, Any]) -> None:
        """See to one result that has predictions; the ledger at hand then holds what was measured."""
        name, source = stem(result["key"], result["predictions"]), source_of(result, self.ledger)
        measured = self.ledger.attempts[result["key"]].measured
        generation = 1 + measured[source].get("generation", 0) if source in measured else 0
        if self.anew and not self.anew.isdisjoint((result["key"], result["columns"]["baseline"])):
            measured.pop(source, None)
        if source in measured:
            self.counting[result["key"]] = held_as(name, measured[source]["scored"])
            if self.counting[result["key"]] in self._held:
                return
        cell = self._read(result)
        if cell is None:
            return
        self.counting[cell.key] = held_as(name, cell.scored)
        if self.counting[cell.key] not in self._held:
            self._samples.add(cell)
        if source not in measured or measured[source]["scored"] != cell.scored:
            self._measure(cell, result, measured, generation)

    def _read(self, result: dict[str, Any]) -> Scored | None:
        """None where the predictions turn out to be damaged, or cannot be read: the cell is then no row."""
        try:
            return Scored(self.output_dir, stem(result["key"], result["predictions"]))
        except UserError as error:
            self._drop(result, error)
            return None

    def _drop(self, result: dict[str, Any], error: UserError) -> None:
        remark(str(error))
        self._damaged.add(result["key"])
        self.ledger.drop(result)
        self.counting[result["key"]] = DAMAGED

    def _baseline(self, result: dict[str, Any]) -> Baseline | None:
        """A result's baseline; where its predictions are damaged there is none, for all that come after either."""
        given = baseline_of(result, self.ledger)
        try:
            return self._baselines(given)
        except UserError as error:
            assert given is not None
            self._drop(given, error)
            return None

    def _measure(
        self, cell: Scored, result: dict[str, Any], measured: dict[str, dict[str, Any]], generation: int
    ) -> None:
        base = self._baseline(result)
        source = source_of(result, self.ledger)  # after the baseline was read
        told = {"time": time.time(), "key": cell.key, "source": source, "generation": generation}
        measured[source] = line = {**told, **measure(cell, base)}
        if complete(cell, base):
            self._lines.append(line)
        if len(self._lines) >= LINES:
            self._write()

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
