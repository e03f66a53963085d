"""The messages between a worker and the other processes of its cells. The settings of the back end come first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blip2sweep.wire.lines import WorkerFailure
from blip2sweep.wire.pack import CellJob


@dataclass(frozen=True)
class Task:
    """Run a share. jobs: the shares that will come, where they are new."""

    job: CellJob
    batch_size: int | None
    jobs: Sequence[CellJob] | None = None


@dataclass(frozen=True)
class Failed:
    """The answer to a share that failed, in the place of `Answered`. no_image: none of its images could be read."""

    failure: WorkerFailure
    no_image: bool
