"""The model of a back end, into which the recipe of one cell after the other is put."""

from __future__ import annotations

import time

import torch

from blip2sweep.apply.coded import coded
from blip2sweep.apply.patch import Applied, Made
from blip2sweep.backends.torch.calibrate import prepare
from blip2sweep.backends.torch.model_state import ModelState, load_state, recipe_of
from blip2sweep.backends.torch.recover import Recoverer
from blip2sweep.backends.torch.shared_work import SharedWork
from blip2sweep.backends.torch.threads import threads_of_model
from blip2sweep.canonical import canonical_json
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.step import RECOVER
from blip2sweep.errors import UserError
from blip2sweep.exporting.made import Made as ModelMade
from blip2sweep.models.load import Loaded
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.compact import expand
from blip2sweep.tasks import PlannedTasks, TaskData
from blip2sweep.wire.pack import CellJob, Settings


class ModelInTurn:
    """One model at a time is loaded. settings: of a `TorchBackend`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.device = settings.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
        self.state: ModelState | None = None
        self.loading = 0.0  # seconds of models for the cell that runs next
        self.shared_work = SharedWork(settings, self.device, self.task)
        self.recoverer = Recoverer(settings, self.device, self.shared_work.store, self.shared_work.remember)
        self._tasks = PlannedTasks()
        # Always, because it also ends MKL's choice of fewer threads. Otherwise the first calibration would end it in mid-sweep.
        self.threads = settings.get("threads") or torch.get_num_threads()
        torch.set_num_threads(self.threads)

    def task(self, job: CellJob) -> TaskData:
        """The data of a job's task, read once."""
        if "planned" not in job["task"]:
            raise UserError(f"cell {job['key']} was planned by an earlier version; right: the same command again")
        return self._tasks(job["task"])

    def plain(self, job: CellJob) -> Loaded:
        """The job's model as it was loaded, until the next job."""
        state = self._loaded(job)
        state.patch.restore()
        return state.loaded

    def quantized(self, job: CellJob) -> Loaded:
        """The job's model with its recipe in it, until the next job."""
        state = self._loaded(job)
        self._apply(state, job, recipe_of(state, job))
        return state.loaded

    def made(self, job: CellJob) -> ModelMade:
        """The job's model with its recipe in it and its codes, to be written, until the next job."""
        state = self._loaded(job)
        recipe = recipe_of(state, job)
        codes, folds = coded(state.patch, recipe, *self._ready(state, job, recipe))
        return ModelMade(state.loaded, expand(job["recipe"], state.loaded.anatomy), codes, job, folds)

    def _loaded(self, job: CellJob) -> ModelState:
        name, began = canonical_json(job["model"]), time.perf_counter()
        if self.state is None or self.state.name != name:
            self.state = None  # free the last one first
            limit, remember = self.settings.get("cache_memory_gb"), self.shared_work.remember
            self.state = load_state(name, job, self.device, limit, remember)
            if self.device == "cpu" and not self.settings.get("threads"):
                torch.set_num_threads(threads_of_model(self.state.loaded.model, self.threads))
            self.shared_work.expect(self.state)
            self.loading += time.perf_counter() - began
        return self.state

    def _apply(self, state: ModelState, job: CellJob, recipe: Recipe) -> Applied:
        """Put a recipe into the model. In a further round of the same cell it is there already, unless another process
        waits for what is calibrated."""
        key, last = state.in_model or ("", None)
        waits, here = "share" in job and job.get("calibration"), last is not None and last is state.patch.last
        if "places" in job["task"] and key == job["key"] and last and here and not waits:
            return last
        applied = state.patch.apply(recipe, *self._ready(state, job, recipe))
        state.in_model = job["key"], applied
        return applied

    def _ready(self, state: ModelState, job: CellJob, recipe: Recipe) -> tuple[dict[str, Prepared], Made]:
        """What calibration made of the layers, and what was made for the steps, as `Patch.apply` takes them."""
        prepared = prepare(state, job, recipe.until(RECOVER), self.device, self.shared_work.store)
        return prepared, {**state.made, RECOVER: self.recoverer(state, job, recipe)}
