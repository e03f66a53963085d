"""The torch back end: runs cells on this process's device.

From one cell to the next only what differs is computed: weights, blocks, stages.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from blip2sweep.apply.calibration import layers
from blip2sweep.apply.packed import packed_layers, split
from blip2sweep.backends.backend import TORCH, Answered, Artifacts, NoImage, SecondRun
from blip2sweep.backends.shares import whole
from blip2sweep.backends.torch.activations import moved, remember_plain
from blip2sweep.backends.torch.cost import cost_columns
from blip2sweep.backends.torch.evaluate import Evaluation, evaluate
from blip2sweep.backends.torch.flops import flop_columns
from blip2sweep.backends.torch.latency import compared
from blip2sweep.backends.torch.model_in_turn import ModelInTurn
from blip2sweep.backends.torch.model_state import ModelState, recipe_of
from blip2sweep.backends.torch.noise import batch_size_noise, calibration_noise, hand_over
from blip2sweep.backends.torch.provenance import provenance
from blip2sweep.backends.torch.recover import check_packed, prepare_device
from blip2sweep.backends.torch.segments import source_of
from blip2sweep.backends.torch.sharing import Account, Shared
from blip2sweep.backends.torch.threads import evaluation_threads
from blip2sweep.backends.torch.timing import device_name, in_model, latency
from blip2sweep.backends.torch.together import Together
from blip2sweep.backends.torch.turns import BASELINE, CELL, Side
from blip2sweep.compression.quantize.threads import fixed_threads
from blip2sweep.machine.memory import is_out_of_memory
from blip2sweep.recipe import Recipe
from blip2sweep.tasks import TaskData
from blip2sweep.tasks.generation import Generation
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.wire.latency import Latency
from blip2sweep.wire.lines import Cost
from blip2sweep.wire.pack import BackendChoice, CellJob, JsonObject, Settings


class TorchBackend(ModelInTurn):
    """Evaluates the cells of a pack one after the other.

    settings: `cache` (disk, memory or off), `cache_dir`, `cache_gb` (on disk), `cache_memory_gb` (on the device and on
    the host, each; None: a share of what is free), `batch_size`, `data_workers`, `device`, `threads`.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.together = Together(self.shared_work, settings)

    @classmethod
    def identity(cls, choice: BackendChoice) -> JsonObject:
        """The name alone. Nobody asks for it, because cells of torch have no back end in their identity."""
        return {"name": TORCH}

    @property
    def warning(self) -> str | None:
        return self.shared_work.warning

    def expect(self, jobs: Sequence[CellJob]) -> None:
        prepare_device(jobs)
        self.shared_work.jobs = jobs
        if self.state is not None:
            self.shared_work.expect(self.state)

    def __call__(self, job: CellJob, batch_size: int | None = None) -> Answered:
        """Run one cell. Its recipe stays in the model until the next job."""
        state = self._loaded(job)
        self.together.ended |= batch_size is not None  # memory ran out
        try:
            return self._run(state, job, batch_size or self.settings.get("batch_size"))
        except Exception as error:
            state.patch.restore()
            if is_out_of_memory(error):
                self.state = None  # with all that it keeps, so that the next attempt has the whole memory
            raise

    # ---- rounds of several cells at once: `SideBySide` (blip2sweep/backends/backend.py)

    def alike(self, job: CellJob) -> str | None:
        return self.together.alike(self.state or self._loaded(job), job)

    def fills(self, job: CellJob) -> bool:
        return self.together.fills(self.state or self._loaded(job), job, self.settings.get("batch_size"))

    def comes(self, jobs: Sequence[CellJob]) -> None:
        self.together.coming = jobs

    # ---- latency

    ROUNDS, RUNS_ALL = True, False

    @property
    def device_name(self) -> str:
        return device_name(self.device)

    def measure(self, job: CellJob) -> list[Latency]:
        """Time a cell and its baseline in turns. The model is then as it was loaded."""
        state = self._loaded(job)
        try:
            recipe, packed = split(recipe_of(state, job))
            ready = self._ready(state, job, recipe)  # once: the model changes several times
            sides: dict[str, Side] = {CELL: partial(in_model, state, recipe, packed, *ready)}
            state.patch.restore()
            if job["key"] != job["baseline"]:
                sides[BASELINE] = contextlib.nullcontext
            where = device_name(self.device)
            return latency(lambda: state.loaded, job, self.task(job), sides, self.settings.get("batch_size"), where)
        except Exception as error:
            state.patch.restore()
            if is_out_of_memory(error):
                self.state = None
            raise

    # ---- one cell

    def _whole(self, job: CellJob) -> TaskData:
        """The data of a job's task, also where this process has a share of it."""
        return self.task(whole(job))

    def _run(self, state: ModelState, job: CellJob, batch_size: int | None) -> Answered:
        began, propagates = time.perf_counter(), self._propagates(job)
        loading, self.loading = self.loading, 0.0  # also where the worker had asked something of the cell before
        shared = self.together.of(state, job, batch_size)
        account, applying = shared.account if shared else Account(), time.perf_counter()
        if propagates:
            remember_plain(state, job, self._whole(job))
        planned = recipe_of(state, job)
        recipe, packed = split(planned)
        check_packed(recipe, packed)
        applied, applied_after = self._apply(state, job, recipe), time.perf_counter() - applying
        with packed_layers(state.loaded, packed):
            evaluation = self._first(state, job, recipe, lambda: self._evaluate(state, job, batch_size, shared))
            noise = batch_size_noise(
                state, job, evaluation, lambda size: self._evaluate(state, job, size, None, anew=True)
            )
            distances = moved(state, job, self._whole(job)) if propagates else []
            against_bf16: Cost = {} if packed.empty else {**compared(state.loaded, job, self.task(job))}
        cost = cost_columns(evaluation, applied, state, account) | state.recoveries.columns | against_bf16
        cost |= flop_columns(evaluation.asked, planned, state.computed)
        cost |= account.seconds_of(loading, applied_after, loading + time.perf_counter() - began)
        artifacts: Artifacts = {"layers": {**layers(state.measured)}, "propagation": distances}
        return Answered(
            Predictions.of(evaluation.records), cost, len(applied.changed | packed.schemes.keys()), provenance(state.loaded, self._threads(job)),
            noise, self._calibration_noise(state, job, recipe, packed, evaluation, batch_size), artifacts,
        )  # fmt: skip

    def _first(self, state: ModelState, job: CellJob, recipe: Recipe, run: Callable[[], Evaluation]) -> Evaluation:
        """The run whose outputs are the cell's."""
        try:
            return run()
        except NoImage:  # the other processes of the cell may have readable ones
            if self._has_floor(job):
                hand_over(state, job, recipe)
            raise

    def _has_floor(self, job: CellJob) -> bool:
        asked = bool(self.settings.get("noise_floor") and job.get("calibration")) and "round" not in job["task"]
        return asked and "recovery" not in job  # its adapter would belong to other weights

    def _calibration_noise(
        self, state: ModelState, job: CellJob, recipe: Recipe, packed: Recipe, first: Evaluation, batch_size: int | None
    ) -> dict[str, SecondRun]:
        if not self._has_floor(job):
            return {}
        return calibration_noise(
            state, job, recipe, packed, first, lambda: self._evaluate(state, job, batch_size, None)
        )

    def _propagates(self, job: CellJob) -> bool:
        """The first process, in the first round of images, measures the first samples of the whole task. Rounds of a
        chat are not measured."""
        first = ("share" not in job or job["share"]["rank"] == 0) and job["task"].get("places", "0-").startswith("0-")
        first &= "round" not in job["task"]
        return bool(self.settings.get("propagation")) and job["key"] != job["baseline"] and first

    def _evaluate(
        self, state: ModelState, job: CellJob, batch_size: int | None, shared: Shared | None, anew: bool = False
    ) -> Evaluation:
        looks = partial(self.shared_work.of, state) if shared is not None else lambda _: None
        with fixed_threads(self._threads(job)):
            return evaluate(
                state.loaded, self.task(job), Generation(**job["generation"]), batch_size=batch_size,
                nll_references=job["task"]["nll_references"],
                features=source_of(state, job, self.task, self.settings.get("data_workers") or 0, looks), shared=shared,
                batch_sizes=state.batch_sizes, anew=anew,
            )  # fmt: skip

    def _threads(self, job: CellJob) -> int:
        return evaluation_threads(job, self.device) or torch.get_num_threads()
