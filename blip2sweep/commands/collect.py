"""`blip2sweep collect`: makes every table of a folder from its journals, whatever tables there are."""

from __future__ import annotations

from pathlib import Path

from blip2sweep.console.remarks import many
from blip2sweep.errors import UserError
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.sweeps import list_sweeps
from blip2sweep.results.table_files import write_sweep


def collect_all(output_dir: Path) -> list[str]:
    """Write table.parquet, samples.parquet and the table of every sweep. Returns what there is to say.

    Raises UserError where there are no journals, and where the folder cannot be written.
    """
    if not any((output_dir / "journals").glob("*.jsonl")):
        raise UserError(f"{output_dir}: no journals here; right: --output-dir of a sweep")
    ledger = Ledger(output_dir, measured=True)
    table, sweeps = collect(output_dir, ledger=ledger), list_sweeps(output_dir)
    for sweep in sweeps:
        write_sweep(output_dir, table, sweep, ledger)
    counts = table["status"].value_counts().to_dict() if len(table) else {}
    told = ", ".join(f"{n} {state}" for state, n in counts.items()) or "none is done or failed"
    return [
        f"wrote {output_dir}/table.parquet ({many(len(table), 'cell')}: {told})",
        f"wrote {output_dir}/samples.parquet",
        *(f"wrote {sweep.folder(output_dir)}/table.parquet" for sweep in sweeps),
    ]
