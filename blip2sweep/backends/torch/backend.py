"""Runs cells on this process's device. From one cell to the next only what differs is done: weights, blocks, stages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from blip2sweep.apply.calibration import Blocks, Calibrator, layers, origin, same_samples, summary, variants, warn_short
from blip2sweep.apply.packed import packed_layers, split
from blip2sweep.apply.patch import Applied, Patch
from blip2sweep.backends.torch import propagation
from blip2sweep.backends.torch.evaluate import Evaluation, evaluate
from blip2sweep.backends.torch.latency import compared
from blip2sweep.backends.torch.provenance import provenance, versions
from blip2sweep.backends.torch.sharing import Answered, Shared, start
from blip2sweep.cache.disk import Store
from blip2sweep.cache.tensors import Memo, budgets
from blip2sweep.canonical import canonical_json
from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.threads import fixed_threads
from blip2sweep.compression.step import STEPS
from blip2sweep.errors import UserError
from blip2sweep.machine.memory import is_out_of_memory
from blip2sweep.models.checkpoints import inspect
from blip2sweep.models.dtypes import HALF
from blip2sweep.models.images import Images
from blip2sweep.models.load import Loaded, load
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.chain import Chain, Entries, chain_of
from blip2sweep.recipe.compact import expand
from blip2sweep.recipe.semantics import SEMANTICS, semantics
from blip2sweep.tasks import TaskData, planned_task
from blip2sweep.tasks.calibration import Calibration
from blip2sweep.tasks.generation import Generation
from blip2sweep.tasks.predictions import Predictions

Job = dict[str, Any]
GB = 10**9
DISK_GB = 20.0


@dataclass(eq=False)
class _Model:
    """A loaded model and all that is remembered of it."""

    name: str
    loaded: Loaded
    patch: Patch
    memo: Memo
    weights: Memo
    entries: Entries
    calibrator: Calibrator | None = None
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    plain: tuple[str, propagation.States] | None = None
    prepared: dict[str, Prepared] = field(default_factory=dict)
    origins: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: dict[str, Images] = field(default_factory=dict)
    answered: Answered[Any] = field(default_factory=Answered)
    fitting: dict[str, int] = field(default_factory=dict)  # batch sizes to which memory has brought cells so far


class Runner:
    """Evaluates jobs of a pack one after the other.

    settings: `cache` (disk, memory or off), `cache_dir`, `cache_gb` (disk), `cache_memory_gb` (device and host, each;
    null: a share of what is free), `batch_size`, `data_workers`, `device`, `threads`.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.device = settings.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
        self.mode = settings.get("cache") or "memory"
        self._model: _Model | None = None
        self._tasks: dict[str, TaskData] = {}
        self._jobs: Sequence[Job] = ()
        self._store: Store | None = None
        if self.mode == "disk" and settings.get("cache_dir"):
            gigabytes = settings.get("cache_gb")
            self._store = Store(Path(settings["cache_dir"]), int((DISK_GB if gigabytes is None else gigabytes) * GB))
        # Always: it also ends MKL's own choice of fewer threads, which the first calibration would end in mid-sweep.
        torch.set_num_threads(settings.get("threads") or torch.get_num_threads())

    @property
    def warning(self) -> str | None:
        """What the user of the sweep ought to hear, though every cell may be well."""
        refused = self._store.refused if self._store else None
        return f"cache could not be written: {refused}" if refused else None

    def task(self, job: Job) -> TaskData:
        name = canonical_json(job["task"])
        if name not in self._tasks:
            if "planned" not in job["task"]:
                raise UserError(f"cell {job['key']} was planned by an earlier version; right: the same command again")
            self._tasks[name] = planned_task(job["task"])
        return self._tasks[name]

    def expect(self, jobs: Sequence[Job]) -> None:
        """The jobs that will come, in their order: what they have in common is then kept for as long as it is wanted."""
        self._jobs = jobs
        if self._model is not None:
            self._expect(self._model)

    def __call__(self, job: Job) -> tuple[Predictions, dict[str, Any]]:
        """(predictions, what the result line says of the run). The recipe stays in the model until the next job."""
        began = time.perf_counter()
        model = self._loaded(job)
        loaded_after = time.perf_counter() - began
        try:
            self._remember_plain(model, job)
            recipe, packed = split(self._recipe(model, job))
            applied, applied_after = self._apply(model, job, recipe), time.perf_counter() - began - loaded_after
            with packed_layers(model.loaded, packed):
                evaluation = self._evaluate(model, job, self.settings.get("batch_size"), self._shared(model, job))
                noise = self._noise(model, job, evaluation)
                moved = self._moved(model, job)
                latency = {} if packed.empty else compared(model.loaded, job, self.task(job))
            counts = {"layers_written": applied.written, "hits_weights": applied.recalled, **summary(model.prepared)}
            seconds = {"load": loaded_after, "apply": applied_after, "": time.perf_counter() - began}
            floor = self._calibration_noise(model, job, recipe, packed, evaluation)
        except Exception as error:
            model.patch.restore()
            if is_out_of_memory(error):
                self._model = None  # and with it all that is remembered: the next attempt has the memory to itself
            raise
        cost = _flat(evaluation.cost) | counts | latency | {f"seconds_{k}".strip("_"): v for k, v in seconds.items()}
        info = {
            "layers_changed": applied.layers_changed + len(packed.schemes),
            "cost": cost,
            "noise": noise,
            **({"calibration_noise": floor} if floor else {}),
            "threads": self._threads(job) or torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            **provenance(model.loaded),
        }
        info |= {"layers": layers(model.prepared), "propagation": moved}
        return Predictions.of(evaluation.records), info

    def _moved(self, model: _Model, job: Job) -> list[dict[str, Any]]:
        """How far each block's output is from full precision's, on the task's first samples."""
        if not self._propagates(job):
            return []
        assert model.plain is not None
        with fixed_threads(1):
            return propagation.compare(model.plain[1], propagation.states(model.loaded, self._first(job)))

    def _remember_plain(self, model: _Model, job: Job) -> None:
        """Full precision's outputs, before the recipe is in the model; once for all cells of a task."""
        name = canonical_json([job["task"], job["generation"]["prompt"]])
        if self._propagates(job) and (model.plain is None or model.plain[0] != name):
            model.patch.restore()
            with fixed_threads(1):  # as calibration: distances of activations are no words that rounding leaves alone
                model.plain = (name, propagation.states(model.loaded, self._first(job)))

    def _propagates(self, job: Job) -> bool:
        return bool(self.settings.get("propagation")) and job["key"] != job["baseline"]

    def _first(self, job: Job) -> Calibration:
        return propagation.first_samples(self.task(job), job["task"], job["generation"]["prompt"])

    def quantized(self, job: Job) -> Loaded:
        """The job's model with its recipe in it, until the next job."""
        model = self._loaded(job)
        self._apply(model, job, self._recipe(model, job))
        return model.loaded

    def _recipe(self, model: _Model, job: Job) -> Recipe:
        recipe = expand(job["recipe"], model.loaded.anatomy)
        if not recipe.empty and recipe.hash != job["recipe_hash"]:
            raise RuntimeError(f"recipe of {job['key']} changed between planning and running")
        return recipe

    def _apply(self, model: _Model, job: Job, recipe: Recipe) -> Applied:
        return model.patch.apply(recipe, self._prepared(model, job, recipe))

    def _prepared(self, model: _Model, job: Job, recipe: Recipe) -> dict[str, Prepared]:
        """What calibration makes of the recipe's layers, measured behind the steps that come before quantization."""
        model.prepared = {}
        if not job.get("calibration"):
            return {}
        model.patch.apply(recipe.before)
        name = canonical_json(job["calibration"])
        if name not in model.calibrations:
            model.calibrations[name] = same_samples(job["calibration"])
        if model.calibrator is None:
            blocks, told = Blocks(model.weights, self._store), origin(model.loaded, job, _code(self.device))
            model.calibrator = Calibrator(model.loaded, told, model.weights, blocks)
        model.prepared = model.calibrator(recipe, model.calibrations[name])
        warn_short(model.prepared)
        return model.prepared

    def _evaluate(self, model: _Model, job: Job, batch_size: int | None, shared: Shared | None) -> Evaluation:
        with fixed_threads(self._threads(job) or torch.get_num_threads()):
            return evaluate(
                model.loaded, self.task(job), Generation(**job["generation"]), batch_size=batch_size,
                nll_references=job["task"]["nll_references"], features=self._images(model, job), shared=shared,
                fitting=model.fitting,
            )  # fmt: skip

    def _threads(self, job: Job) -> int | None:
        """CPU threads that a cell has to be evaluated on. One where inputs are rounded: there the last digit of a sum, which
        follows the number of threads, becomes a whole code and then another word. None: the machine's."""
        rounds = any(e.get("input") and not e.get("packed") for e in job["recipe"])
        return 1 if rounds and self.device == "cpu" else None

    def _images(self, model: _Model, job: Job) -> Images:
        """The task's images, decoded and preprocessed once for all cells of a model; those of one task at a time."""
        name = canonical_json(job["task"])
        if name not in model.images:
            workers, skip = self.settings.get("data_workers") or 0, job["task"]["on_bad_image"]
            model.images = {name: Images(model.loaded, self.task(job), workers, skip)}
        return model.images[name]

    def _noise(self, model: _Model, job: Job, first: Evaluation) -> dict[str, Any] | None:
        """The noise floor: in half precision the baseline is run at a second batch size, and outputs are compared.
        Nothing is shared with that run: it would only be compared with itself."""
        if job["key"] != job["baseline"] or not set(model.loaded.dtypes.values()) & set(HALF):
            return None
        batch_size = max(1, first.cost["batch_size"] // 2)
        second = self._evaluate(model, job, batch_size, None)
        return {"batch_sizes": [first.cost["batch_size"], batch_size], **_flips(first, second)}

    def _calibration_noise(
        self, model: _Model, job: Job, recipe: Recipe, packed: Recipe, first: Evaluation
    ) -> dict[str, dict[str, Any]]:
        """The noise floor of a calibrated cell, on request: the same recipe, calibrated in other ways that are as good."""
        if not self.settings.get("noise_floor") or not job.get("calibration"):
            return {}
        assert model.calibrator is not None
        found = {}
        for name, other in variants(model.calibrations[canonical_json(job["calibration"])]).items():
            model.patch.apply(recipe.before)
            model.patch.apply(recipe, model.calibrator(recipe, other))
            with packed_layers(model.loaded, packed):
                second = self._evaluate(model, job, self.settings.get("batch_size"), None)
            found[name] = {**other.arithmetic, "seed": other.seed, **_flips(first, second)}
        model.patch.restore()
        return found

    # ---- what is shared

    def _shared(self, model: _Model, job: Job) -> Shared | None:
        if self.mode == "off":
            return None
        step = next((i for i, j in enumerate(self._jobs) if j["key"] == job["key"]), None)
        if step is not None:
            model.memo.at(step)
        chain, after = self._chain(model, job), model.loaded.images[-1].name
        return Shared(model.memo, chain, after, self._origin(model, job), model.answered, self._store)

    def _chain(self, model: _Model, job: Job) -> Chain:
        return chain_of(self._origin(model, job), model.entries(job["recipe"]), model.loaded.anatomy.stages)

    def _origin(self, model: _Model, job: Job) -> dict[str, Any]:
        threads = self._threads(job) or (torch.get_num_threads() if model.loaded.device.type == "cpu" else 0)
        name = canonical_json([job["task"], threads])
        if name not in model.origins:  # a row's number of threads is that of all that went into it
            model.origins[name] = start(model.loaded, self.task(job), job, _code(self.device)) | {"threads": threads}
        return model.origins[name]

    def _expect(self, model: _Model) -> None:
        model.memo.expect([self._wanted(model, j) for j in self._jobs])

    def _wanted(self, model: _Model, job: Job) -> tuple[str, ...]:
        """What a job will look for; nothing, when it cannot be said: what is wrong with it is told in its turn."""
        try:
            return self._chain(model, job).keys if canonical_json(job["model"]) == model.name else ()
        except UserError:
            return ()

    def _loaded(self, job: Job) -> _Model:
        name = canonical_json(job["model"])
        if self._model is None or self._model.name != name:
            self._model = None  # free the last one first
            self._model = self._load(name, job)
            if self.mode != "off":
                self._expect(self._model)
        return self._model

    def _load(self, name: str, job: Job) -> _Model:
        _check_unchanged(job)
        loaded = load(job["model"], Path(job["folder"]), device=self.device)
        limit = self.settings.get("cache_memory_gb")
        device, host = budgets(loaded.device, None if limit is None else int(limit * GB))
        if self.mode == "off":
            device = host = 0
        features, weights = (Memo(loaded.device, int(device * s), int(host * s)) for s in (0.6, 0.4))
        return _Model(name, loaded, Patch(loaded, weights), features, weights, Entries(loaded.anatomy))


def _flips(first: Evaluation, second: Evaluation) -> dict[str, Any]:
    """Outputs of one cell that a second run says otherwise, and that run's records."""
    said = (Predictions.of(evaluation.records).outputs for evaluation in (first, second))
    flips = sum(a != b for a, b in zip(*said, strict=True))
    return {"flips": flips, "flip_rate": flips / max(1, len(first.records)), "records": second.records}


def _check_unchanged(job: Job) -> None:
    """Raise UserError where a checkpoint is no longer what was planned: its row would be another model's."""
    planned, found = job["columns"]["weights"], inspect(Path(job["folder"])).fingerprint
    if not found.startswith(planned):
        raise UserError(
            f"{job['folder']}: changed since it was planned (fingerprint {planned}, now {found[:12]}); right: start the "
            f"sweep again, so that its cells are those of the new weights"
        )


def _code(device: str = "cpu") -> str:
    """What may change results though the identity says nothing of it, versions and the kind of processor: entries of another
    are not looked for, so that a row's columns hold for all that went into it."""
    on_gpu = device.startswith("cuda")
    kind = torch.cuda.get_device_name(device) if on_gpu else torch.backends.cpu.get_cpu_capability()
    return f"semantics {SEMANTICS} {semantics(METHODS, STEPS)} {versions()} {kind}"


def _flat(cost: dict[str, Any]) -> dict[str, Any]:
    """Evaluation's cost as columns: seconds and hits by stage, bad images counted."""
    stages = {f"seconds_{stage}": seconds for stage, seconds in cost["seconds"].items()}
    hits = {f"hits_{stage}": n for stage, n in cost["hits"].items()}
    rest = {k: v for k, v in cost.items() if k not in ("seconds", "hits", "seconds_total", "bad_images")}
    flat = {**stages, **hits, **rest, "bad_images": len(cost["bad_images"])}
    return {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in flat.items()}
