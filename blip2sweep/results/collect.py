"""Journals -> tables. Anywhere, any time, idempotent: reads the ledger, writes tables whole."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from blip2sweep import outside
from blip2sweep.canonical import digest
from blip2sweep.console.remarks import many, remark, some
from blip2sweep.files import sweep_up
from blip2sweep.results.collector import Collector
from blip2sweep.results.committed import predictions_name
from blip2sweep.results.ledger import Attempts, Ledger, attempt_id, no_garbage
from blip2sweep.results.propagation import write_propagation
from blip2sweep.results.samples import show
from blip2sweep.results.sweeps import Sweep, list_sweeps, outside_code
from blip2sweep.results.table import build_table
from blip2sweep.results.table_files import State, state, sweep_rows, write_sweep, write_table
from blip2sweep.tasks.task import load_outside

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
    code = outside_code(output_dir)
    outside.remember(code)
    load_outside(name for group, _, name in (full.partition(".") for full in code) if group == "tasks")
    with no_garbage():
        there = state(output_dir)
        return _collect(output_dir, sweep, (ledger or Ledger(output_dir, measured=True)).refresh(), anew, there)


def _collect(
    output_dir: Path, sweep: Sweep | None, ledger: Ledger, anew: Collection[str], there: State
) -> pd.DataFrame:
    """there: the `state` before the ledger was read; what we write ourselves is known."""
    tell_open(output_dir, ledger)
    missing = Collector(output_dir, ledger, anew)
    missing.all()
    there |= missing.close()
    if not ledger.unreadable:
        show(output_dir, missing.counting)
    table = build_table(ledger)
    write_table(output_dir / "table.parquet", table, ledger, digest(there))
    results = [r for r in ledger.results() if r["predictions"]]
    write_propagation(output_dir, {predictions_name(r): r["key"] for r in results})
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


def looked_up(output_dir: Path, sweep: Sweep | None = None) -> pd.DataFrame:
    """The rows as the journals have them now, where nothing may be written. What nobody measured yet has no metrics."""
    table = build_table(Ledger(output_dir, measured=True).refresh())
    return table if sweep is None else sweep_rows(table, sweep)
