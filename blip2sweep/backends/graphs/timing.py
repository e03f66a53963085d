"""The latency of a cell that runs as graphs, in turns with its baseline and with torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from blip2sweep.backends.graphs.cells import Cells
from blip2sweep.backends.torch.timing import is_on, latency
from blip2sweep.backends.torch.turns import BASELINE, CELL, TORCH, Side
from blip2sweep.models.load import Loaded
from blip2sweep.tasks.sample import TaskData
from blip2sweep.wire.latency import Latency
from blip2sweep.wire.pack import CellJob


class _Turns:
    """The model that has its turn."""

    def __init__(self, first: Loaded) -> None:
        self.loaded = first

    @contextmanager
    def of(self, model: Loaded) -> Iterator[None]:
        self.loaded = model
        yield


def latency_of(
    cells: Cells, job: CellJob, task: TaskData, plain: Callable[[], Loaded], most: int | None, device: str
) -> list[Latency]:
    """plain: torch's uncompressed model, which is timed too where the graphs run on its device. most: images in a batch.
    device: the name by which latencies are kept."""
    cell, baseline = cells(job).loaded, cells.baseline(job).loaded
    turns = _Turns(cell)
    sides: dict[str, Side] = {CELL: partial(turns.of, cell)}
    if is_on(cell, device):
        sides[TORCH] = partial(turns.of, plain())
    if job["key"] != job["baseline"]:
        sides[BASELINE] = partial(turns.of, baseline)
    return latency(lambda: turns.loaded, job, task, sides, most, device)
