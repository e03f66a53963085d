"""Makes tables from journals: reads the ledger and replaces whole tables.

Collecting may run anywhere and at any time. A second run without new results changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
from blip2sweep.results.samples import publish
from blip2sweep.results.score_folders import known_variants, score_folder
from blip2sweep.results.sweep_code import outside_code
from blip2sweep.results.sweeps import Sweep, list_sweeps
from blip2sweep.results.table import build_table
from blip2sweep.results.table_files import State, state, sweep_rows, system_memory, write_sweep, write_table
from blip2sweep.tasks.task import load_outside

# Folders where killed writers leave temporary files.
WRITTEN = ("journals", "predictions", "scores", "layers", "propagation")


def collect(
    output_dir: Path, sweep: Sweep | None = None, rescored: Collection[str] = (), ledger: Ledger | None = None
) -> pd.DataFrame:
    """Write table.parquet (all cells), samples.parquet and, for a sweep, the sweep's own table. Returns the sweep's
    rows, or all rows without a sweep.

    A cell that was measured before costs only its lines of the ledger. A cell whose predictions are gone or damaged is
    named in a remark and left out. When a part of the ledger cannot be read, existing tables stay as they are, because
    they may hold more.

    rescored: keys of cells that were just scored in another way. Their measurements, and those of cells whose baseline
    is among them, are made again. ledger: a ledger of all cells with `measured=True`, where the caller has read one
    already.

    Raises UserError, one line, when the output folder cannot be written.
    """
    code = outside_code(output_dir)
    outside.remember(code)
    load_outside(name for group, _, name in (full.partition(".") for full in code) if group == "tasks")
    with no_garbage(), system_memory():
        made_from = state(output_dir)
        return _collect(output_dir, sweep, (ledger or Ledger(output_dir, measured=True)).refresh(), rescored, made_from)


def _collect(
    output_dir: Path, sweep: Sweep | None, ledger: Ledger, rescored: Collection[str], made_from: State
) -> pd.DataFrame:
    """made_from: the `state` before the ledger was read. The journal that this process writes is added to it."""
    sweeps = list_sweeps(output_dir)
    remark_unfinished(sweeps, ledger)
    collector = Collector(output_dir, ledger, rescored)
    collector.all()
    made_from |= collector.close()
    if not ledger.unreadable:
        publish(output_dir, collector.entries)
    table = build_table(ledger, collector.sources, sweeps)
    del collector
    write_table(output_dir / "table.parquet", table, ledger, digest(made_from))
    results = [r for r in ledger.results() if r["predictions"]]
    write_propagation(output_dir, {predictions_name(r): r["key"] for r in results})
    folders = [*(output_dir / f for f in WRITTEN), *(score_folder(output_dir, v) for v in known_variants(output_dir))]
    sweep_up([output_dir, *folders, *(output_dir / "sweeps").glob("*")])
    if sweep is None:
        return table
    return write_sweep(output_dir, table, sweep, ledger, made_from)


def remark_unfinished(sweeps: Sequence[Sweep], ledger: Ledger) -> None:
    """Name the cells whose result in the table may still be replaced."""
    to_replace = {k: set(attempts) for s in sweeps for k, attempts in s.rerun.items()}
    cells = ledger.attempts.items()
    old = [k for k, a in cells if k in to_replace and a.results and a.results <= to_replace[k]]
    if old:
        remark(f"{many(len(old), 'cell')} shown with the result that --rerun is to replace: the ledger has no newer one "
               f"({some(old)})")  # fmt: skip
    unfinished = [(k, a) for k, a in cells if not a.starts.keys() <= a.ended and a.result and "starts" in a.result]
    later = [k for k, a in unfinished if _unknown(a)]
    if later:
        remark(f"{many(len(later), 'cell')} with an attempt that has not ended and that the result shown does not know "
               f"({some(later)})")  # fmt: skip


def _unknown(attempts: Attempts) -> bool:
    """Whether an attempt is open that the writer of the result did not know about."""
    assert attempts.result is not None
    return bool(set(map(attempt_id, attempts.open)) - set(attempts.result["starts"]))


def unwritten_rows(output_dir: Path, sweep: Sweep | None = None) -> pd.DataFrame:
    """The rows from the journals as they are now, for a folder that may not be written. Cells that were never measured
    have no metrics."""
    table = build_table(Ledger(output_dir, measured=True).refresh())
    return table if sweep is None else sweep_rows(table, sweep)
