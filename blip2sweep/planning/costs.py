"""The expected cost of a cell: measured when the ledger has similar cells, a rough guess otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from blip2sweep.planning.training_costs import training_seconds
from blip2sweep.recipe.part_bits import part_columns
from blip2sweep.results.ledger import Ledger
from blip2sweep.wire.pack import CellJob, Columns

# For the first sweep on an unknown machine, from 37 s for 1000 images on a model with 3.7e9 parameters. Later sweeps
# are measured.
SECONDS_PER_CELL, SECONDS_PER_SAMPLE_AND_PARAMETER = 1.0, 1e-11
BEFORE_IMAGES = ("seconds_load", "seconds_apply")  # of the cost: however many images there are


def expected_seconds(
    jobs: Sequence[CellJob], ledger: Ledger, processes: int = 1, cache: str | None = None
) -> dict[str, float]:
    """{key: seconds}. The seconds are those of the cell's own last run; else the mean of cells with its model, task and
    parts; else the mean of its model and task; else a guess. Training comes on top of them, once for all cells that share
    what is trained.

    processes: that share each cell. What a cell took is taken to fall with their number, but for training. cache: the
    setting of the workers.
    """
    means, training = mean_seconds(ledger), training_seconds(jobs, ledger, cache)
    return {
        j["key"]: means.get(j["key"], seconds_like(j["columns"], means)) / processes + training.get(j["key"], 0.0)
        for j in jobs
    }


def mean_seconds(ledger: Ledger) -> dict[str, float]:
    """{name: mean of `measured_seconds`}."""
    return {name: fmean(times) for name, times in measured_seconds(ledger).items()}


def seconds_like(columns: Columns, means: dict[str, float]) -> float:
    """Seconds of a cell that was not run, from the mean of those most like it, else from a guess. means: as
    `mean_seconds` gives them."""
    return next((means[name] for name in similarity_names(columns) if name in means), guess(columns))


def measured_seconds(ledger: Ledger) -> dict[str, list[float]]:
    """{name: seconds that one process would take, of every result}, for each name under which a similar cell looks.

    Without those of training. Of a cell that stopped early what all images would take: more of what it spent on images,
    and as much of what it spent before them.
    """
    found: dict[str, list[float]] = {}
    for result in ledger.results():
        cost = result.get("cost") or {}
        seconds, processes, trained = cost.get("seconds"), cost.get("processes", 1), cost.get("seconds_trained", 0.0)
        if isinstance(seconds, int | float) and isinstance(processes, int) and isinstance(trained, int | float):
            seconds = max(0.0, seconds - trained)
            if early := result.get("stopped"):
                before = min(seconds, sum(_number(cost.get(name)) for name in BEFORE_IMAGES))
                seconds = before + (seconds - before) * early["of"] / early["images"]
            for name in (result["key"], *similarity_names(result["columns"])):
                found.setdefault(name, []).append(seconds * processes)
    return found


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def similarity_names(columns: Columns) -> tuple[str, str]:
    """Names that similar cells share, the most similar first: same model, task, samples, back end, parts and widths;
    then the same without parts and widths."""
    backend = f" {columns['backend']}" if "backend" in columns else ""
    general = f"{columns['model']} {columns['dtype']} {columns['data']} {columns['samples']}{backend}"
    widths = set(part_columns(columns, [columns["recipe"]]))
    bits = [v for c, v in sorted(columns.items()) if c in widths]
    return f"{general} {columns['part']} {bits}", general


def guess(columns: Columns) -> float:
    """Seconds of a cell from its number of samples and parameters."""
    parameters = columns.get("params") or columns.get("model_bytes", 0) / 2
    return SECONDS_PER_CELL + columns["samples"] * parameters * SECONDS_PER_SAMPLE_AND_PARAMETER
