"""What planning knows of a back end that runs graphs. No torch here: what runs is made late."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from blip2sweep.backends.backend import Answered, Asked
from blip2sweep.wire.latency import Latency
from blip2sweep.wire.pack import BackendChoice, CellJob, JsonObject, Settings

if TYPE_CHECKING:
    from blip2sweep.backends.graphs.worker import GraphWorker


class GraphBackend(ABC):
    """A `Backend` that `Times` and `Refuses` (blip2sweep/backends/backend.py)."""

    RUNS_ALL = True
    RUNS_GRAPHS = True  # so a row's size is that of what graphs read

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def make(self) -> GraphWorker:
        """What runs its cells. Its library is imported here."""

    @cached_property
    def worker(self) -> GraphWorker:
        return self.make()

    @classmethod
    @abstractmethod
    def identity(cls, choice: BackendChoice) -> JsonObject: ...

    @classmethod
    def of_graphs(cls, asked: Asked) -> Iterator[str]:
        """Why no graphs can answer a cell."""
        beams = asked.generation.num_beams
        if "generate" in asked.requests and beams != 1:
            yield f"writes with one beam, not {beams}; right: generation.num_beams=1"
        if "match" in asked.requests:
            yield "compares no pictures with texts; right: backend=torch"

    @property
    def device_name(self) -> str:
        return self.worker.device_name

    @property
    def warning(self) -> str | None:
        return self.worker.warning

    def expect(self, jobs: Sequence[CellJob]) -> None:
        self.worker.expect(jobs)

    def __call__(self, job: CellJob, batch_size: int | None = None) -> Answered:
        return self.worker(job, batch_size)

    def measure(self, job: CellJob) -> Sequence[Latency]:
        return self.worker.measure(job)
