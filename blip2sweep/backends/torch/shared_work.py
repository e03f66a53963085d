"""What the cells of a pack share: the keys that later cells look for, and where a cell looks and leaves results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from blip2sweep.backends.shares import whole
from blip2sweep.backends.torch.model_state import GB, ModelState
from blip2sweep.backends.torch.provenance import computed_by
from blip2sweep.backends.torch.sharing import Shared, start
from blip2sweep.backends.torch.threads import evaluation_threads
from blip2sweep.cache.disk import Store
from blip2sweep.canonical import canonical_json
from blip2sweep.errors import UserError
from blip2sweep.recipe.chain import Chain, chain_of
from blip2sweep.tasks import TaskData
from blip2sweep.wire.pack import CellJob, JsonObject, Settings

DISK_GB = 20.0


class SharedWork:
    """Keeps what several cells of a worker share.

    settings: `cache` (disk, memory or off), `cache_dir`, and `cache_gb`, the size of the disk cache. task: returns the
    data of a job's task. held: the first step of the cell in whose turn
    rounds of several run: what it and later steps need is kept.
    """

    def __init__(self, settings: Settings, device: str, task: Callable[[CellJob], TaskData]) -> None:
        mode = settings.get("cache") or "memory"
        self.device, self.task, self.remember = device, task, mode != "off"
        self.jobs: Sequence[CellJob] = ()
        self.held: int | None = None
        self._steps: tuple[Sequence[CellJob], dict[tuple[str, str | None], int], dict[str, int]] = (), {}, {}
        self.store: Store | None = None
        if mode == "disk" and (folder := settings.get("cache_dir")):
            gigabytes = settings.get("cache_gb")
            self.store = Store(Path(folder), int((DISK_GB if gigabytes is None else gigabytes) * GB))

    @property
    def warning(self) -> str | None:
        refused = self.store.refused if self.store else None
        return f"cache could not be written: {refused}" if refused else None

    def expect(self, state: ModelState) -> None:
        """Tell a model's store which jobs will come."""
        if self.remember:
            state.memo.expect([self._wanted(state, j) for j in self.jobs])

    def of(self, state: ModelState, job: CellJob) -> Shared | None:
        """Where this job looks and leaves results. None where nothing is shared."""
        if not self.remember:
            return None
        step = self.step(job) if self.held is None else self.held - 1
        if step is not None:
            state.memo.advance(step)
        return self.shared(state, job)

    def step(self, job: CellJob) -> int | None:
        """The number of a job among those that come; None where it is not expected."""
        return self._numbers()[0].get(piece_of(job))

    def first_step(self, key: str) -> int | None:
        """The number of the first job of a cell."""
        return self._numbers()[1].get(key)

    def _numbers(self) -> tuple[Mapping[tuple[str, str | None], int], Mapping[str, int]]:
        """({job: its number}, {cell: the number of its first job})."""
        if self._steps[0] is not self.jobs:
            backwards = [*enumerate(self.jobs)][::-1]
            self._steps = self.jobs, {piece_of(j): i for i, j in backwards}, {j["key"]: i for i, j in backwards}
        return self._steps[1:]

    def shared(self, state: ModelState, job: CellJob) -> Shared:
        """`of` a job whose turn it is not."""
        after, origin = state.loaded.images[-1].name, self._origin(state, job)
        shared = Shared(state.memo, self.chain(state, job), after, origin, state.answers, self.store)
        shared.whole = self._whole(state, job)
        shared.images = [] if shared.whole is None else [*self.task(job).images]
        return shared

    def _whole(self, state: ModelState, job: CellJob) -> str | None:
        """The key of what the language model sees of all images, of a round of them; None of any other job."""
        if "places" not in job["task"] or "share" in job["task"]:
            return None
        return self.chain(state, whole(job)).output

    def _wanted(self, state: ModelState, job: CellJob) -> tuple[str, ...]:
        """The keys that a job will look for. Empty where the job is wrong: its own turn reports that."""
        try:
            if canonical_json(job["model"]) != state.name:
                return ()
            own = self.chain(state, job).keys
            of_all = self._whole(state, job)
            return own if of_all is None else (*own, of_all)
        except UserError:
            return ()

    def chain(self, state: ModelState, job: CellJob) -> Chain:
        """The keys of all that a job computes."""
        return chain_of(self._origin(state, job), state.entries(job["recipe"]), state.loaded.anatomy.stages)

    def _origin(self, state: ModelState, job: CellJob) -> JsonObject:
        on_cpu = state.loaded.device.type == "cpu"
        threads = evaluation_threads(job, self.device) or (torch.get_num_threads() if on_cpu else 0)
        name = canonical_json([job["task"], threads])
        if name not in state.origins:  # everything in a row was computed on the row's number of threads
            made = start(state.loaded, self.task(job), job, computed_by(self.device))
            state.origins[name] = made | {"threads": threads}
        return state.origins[name]


def piece_of(job: CellJob) -> tuple[str, str | None]:
    """Names a job among those of its worker: the cell, and of a round its images."""
    return job["key"], job["task"].get("places")
