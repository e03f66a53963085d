"""A random model drawn on the device, behind the back end that runs cells for a user. No checkpoint, no ledger, no plan."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.backends.torch.model_state import state_of
from blip2sweep.canonical import canonical_json, digest
from blip2sweep.models.load import ready
from blip2sweep.recipe import Recipe, resolve_recipe
from blip2sweep.recipe.calibrated import stamped
from blip2sweep.recipe.chain import Prefixes
from blip2sweep.recipe.compact import expand, targets
from blip2sweep.tasks import TaskData, load_task, planned_task
from blip2sweep.tasks.calibration import Calibration, choose
from blip2sweep.tasks.generation import Generation
from scripts.benchmarks.models import draw_model, text_of, write_images
from scripts.gpu_checks.older import taking_features

if TYPE_CHECKING:
    from blip2sweep.wire.model_section import ModelSection
    from blip2sweep.wire.pack import CellJob, Settings

UNTOUCHED = {"part": "none", "blocks": "all", "layers": "all", "per_part": {}, "rules": {}, "quant": {"method": "none"}}


class Subject:
    """A model, its pictures and its back end.

    section: the composed `model` section. text: what the model reads with every picture, as plain transformers takes it.
    older: whether its forward pass takes features of pictures only here (older.py).
    """

    def __init__(self, section: ModelSection, folder: Path, device: str, images: int, new_tokens: int) -> None:
        self.section, self.device, self.new_tokens = section, device, new_tokens
        (folder / "model").mkdir(parents=True)
        model = draw_model(section, folder / "model", device)
        model.config.save_pretrained(folder / "model")
        self.older = "qformer_config" not in section["config"] and taking_features(model)
        self.loaded = ready(model, folder / "model", section)
        self.folder, self.text = folder / "model", text_of(section)
        task = {**write_images(folder / "images", images), "nll_references": 0}
        read = load_task(task)
        self.task = {**task, "planned": {"samples": read.fingerprint, "images": read.content}}
        self.generation = Generation((section.get("prompts") or {}).get("caption"), 1, new_tokens)
        self.backend = self.behind({})

    def behind(self, settings: Settings) -> TorchBackend:
        """A back end that has loaded the model and keeps nothing of it yet."""
        backend = TorchBackend({"device": self.device, **settings})
        name = canonical_json(self.section)
        backend.state = state_of(name, self.loaded, None, backend.shared_work.remember)
        return backend

    @property
    def data(self) -> TaskData:
        return planned_task(self.task)

    def recipe(self, config: Mapping[str, Any]) -> Recipe:
        return resolve_recipe(config, self.loaded.anatomy)

    def job(self, config: Mapping[str, Any], samples: Calibration | None = None) -> CellJob:
        """The job of a cell. config: the sections of its recipe."""
        recipe = self.recipe(config)
        recipe = recipe if samples is None else stamped(recipe, samples.digest)
        columns = {"weights": "random", "task": self.task["name"], "data": "random", "generation": ""}
        job = {
            "key": digest(recipe.hash)[:12], "model": self.section, "folder": str(self.folder), "task": self.task,
            "generation": self.generation.as_dict(), "recipe": targets(recipe), "recipe_hash": recipe.hash,
            "baseline": digest(self.recipe(UNTOUCHED).hash)[:12],
            "calibration": samples.job() if samples else None, "columns": columns,
        }  # fmt: skip
        return cast("CellJob", job)

    def jobs(self, configs: Sequence[Mapping[str, Any]]) -> list[CellJob]:
        """The distinct cells and their baseline, in the order in which a worker shares most."""
        found = {job["key"]: job for job in map(self.job, (UNTOUCHED, *configs))}
        return sorted(found.values(), key=Prefixes())

    def samples(self, n: int) -> Calibration:
        """Calibration samples: of the very pictures that are evaluated, since nothing is concluded from what is written."""
        split = {k: v for k, v in self.task.items() if k != "planned"}
        data = choose(load_task(split), n, 0)
        return Calibration(split, data, "random", n, 0, "full", 1.0, False, self.generation.prompt)

    def layers(self, job: CellJob) -> dict[str, tuple[str, int]]:
        """{module path: (method, bits)} as the reference takes it."""
        schemes = expand(job["recipe"], self.loaded.anatomy).schemes
        return {path: (s.weights.method, s.weights.num_bits) for path, s in schemes.items()}

    def now(self) -> float:
        """Seconds of a clock, when the device has finished what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def free(self) -> None:
        """Forget what is kept of cells, and give the device's memory back."""
        if self.backend.state is not None:
            self.backend.state.patch.restore()
        self.backend = self.behind({})
        gc.collect()  # a back end and its stores hold each other
        if self.device == "cuda":
            torch.cuda.empty_cache()
