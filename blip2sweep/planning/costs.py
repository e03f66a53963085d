"""What a cell is expected to cost: measured where the ledger knows its like, a rough guess elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from blip2sweep.recipe.part_bits import part_columns
from blip2sweep.results.ledger import Ledger
from blip2sweep.wire.pack import CellJob, Columns

# Of a first sweep on an unknown machine: 37 s for 1000 images on a 3.7 G parameter model. The next one is measured.
SECONDS_PER_CELL, SECONDS_PER_SAMPLE_AND_PARAMETER = 1.0, 1e-11


def expected_seconds(jobs: Sequence[CellJob], ledger: Ledger) -> dict[str, float]:
    """{key: seconds}: its own last time, else the mean of its model, task and part, else of its model and task, else a guess."""
    measured = measurements(ledger)
    means = {name: fmean(times) for name, times in measured.items()}
    return {
        j["key"]: next((means[n] for n in (j["key"], *likes(j["columns"])) if n in means), guess(j["columns"]))
        for j in jobs
    }


def measurements(ledger: Ledger) -> dict[str, list[float]]:
    """Seconds of every result, under each name that a like cell may look for."""
    found: dict[str, list[float]] = {}
    for result in ledger.results():
        seconds = (result.get("cost") or {}).get("seconds")
        if isinstance(seconds, int | float):
            for name in (result["key"], *likes(result["columns"])):
                found.setdefault(name, []).append(seconds)
    return found


def likes(columns: Columns) -> tuple[str, str]:
    """Cells of the same model, task, samples and back end are alike; more so where they touch the same part at the same
    width."""
    general = (
        f"{columns['model']} {columns['dtype']} {columns['data']} {columns['samples']} {columns.get('backend', '')}"
    )
    widths = set(part_columns(columns, [columns["recipe"]]))
    bits = [v for c, v in sorted(columns.items()) if c in widths]
    return f"{general} {columns['part']} {bits}", general


def guess(columns: Columns) -> float:
    parameters = columns.get("params") or columns.get("model_bytes", 0) / 2
    return SECONDS_PER_CELL + columns["samples"] * parameters * SECONDS_PER_SAMPLE_AND_PARAMETER
