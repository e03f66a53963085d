"""Cell and key: one resolved configuration, and its identity.

The key is a hash of what determines the cell's predictions and of nothing else: weights, dtypes, recipe, samples,
prompt and generation. The spelling of the configuration, the machine, batch sizes and metrics do not change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

from blip2sweep import outside
from blip2sweep.backends.backend import identity_of
from blip2sweep.canonical import canonical_json, digest
from blip2sweep.models.architecture import asked_as
from blip2sweep.models.dtypes import HALF, of_part
from blip2sweep.planning import outside_code
from blip2sweep.planning.chosen_backend import backend_text, runs_graphs
from blip2sweep.planning.chosen_chat import chat_columns, chat_job, rounds_of
from blip2sweep.planning.held import held_columns
from blip2sweep.planning.model import Model
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.back_end import left, libraries
from blip2sweep.recipe.columns import recipe_columns
from blip2sweep.recipe.compact import targets
from blip2sweep.recipe.params import param_columns
from blip2sweep.recipe.semantics import semantics
from blip2sweep.recipe.trained import control_of
from blip2sweep.recipe.trained import stamped as trained
from blip2sweep.tasks import TaskData
from blip2sweep.tasks.calibration import Calibration
from blip2sweep.tasks.content import READING
from blip2sweep.tasks.generation import Generation
from blip2sweep.tasks.training import Training
from blip2sweep.wire.chat import ChatRecipe
from blip2sweep.wire.pack import (
    BackendChoice,
    CellJob,
    Columns,
    GenerationJob,
    JsonObject,
    OutsideCode,
    PlannedTask,
    TaskJob,
)


@dataclass(frozen=True, eq=False)
class Cell:
    """One configuration of the grid, resolved.

    used: config keys that determine something about the cell. backend: None for torch, which an identity does not name.
    chat: None of a task that asks no chat model. training: the samples of a recipe that trains layers. original: what a
    checkpoint that is quantized already is compared with; None: with itself.
    """

    model: Model
    recipe: Recipe
    task: TaskData
    task_config: Mapping[str, object]
    generation: Generation
    used: frozenset[str]
    calibration: Calibration | None = None
    backend: BackendChoice | None = None
    chat: ChatRecipe | None = None
    training: Training | None = None
    original: Model | None = None

    @cached_property
    def semantics(self) -> int:
        """The version of everything that computes this cell: of the package, its recipe's methods and further steps."""
        parts = self.recipe.parts.values()
        half = (m for part in parts if of_part(self.model.stored, part.part.name) in HALF for m in part.methods)
        return semantics((m for part in parts for m in part.methods), self.recipe.further, half)

    @cached_property
    def outside(self) -> dict[str, OutsideCode]:
        """The code it uses that is no part of this package."""
        tasks = [self.task_config, *(x.task for x in (self.calibration, self.training) if x)]
        return outside_code.of_cell(self.model.config, tasks, self.recipe, self.backend)

    def check_outside(self) -> None:
        """Raise UserError where a name that the cell uses is given by two packages, or by one beside a built-in."""
        _ = self.outside

    @cached_property
    def identity(self) -> JsonObject:
        """Everything that determines the predictions, resolved, as JSON."""
        backend = identity_of(self.backend) if self.backend else None
        return {
            "semantics": self.semantics,
            "weights": self.model.fingerprint,
            "dtypes": self.model.stage_dtypes,
            "recipe": None if self.recipe.empty else self.recipe.hash,
            "samples": self.task.fingerprint,
            "images": self.task.content,
            "pictures": READING,
            "kind": self.task.kind,
            "on_bad_image": self.task_config["on_bad_image"],
            "nll_references": self.task_config["nll_references"],
            "generation": self.generation.as_dict(),
            **asked_as(self.model.config),
            **({"settings": dict(self.task.settings)} if self.task.settings else {}),
            **({"stored": self.model.narrowed} if self.model.narrowed else {}),
            **({"backend": backend} if backend else {}),
            **({"libraries": rounded_by} if (rounded_by := libraries(self.recipe)) else {}),
            **({"outside": outside.identity(self.outside)} if self.outside else {}),
            **({"chat": {**self.chat, "rounds": rounds_of(self.chat)}} if self.chat else {}),
            # A row names one baseline. So a cell that is compared with another one is another cell.
            **({"original": self.original.fingerprint} if self.original else {}),
        }

    @cached_property
    def key(self) -> str:
        """The first 12 hex digits of the sha256 of the identity."""
        return digest(self.identity)[:12]

    def baseline(self) -> Cell:
        """The cell with the empty recipe and the same model, or its original, dtypes, task, generation and back end."""
        model = self.original or self.model
        return replace(
            self, model=model, recipe=self._untouched, used=frozenset(), calibration=None, training=None, original=None
        )

    @property
    def _untouched(self) -> Recipe:
        return Recipe.untouched({n: p.part for n, p in self.recipe.parts.items()})

    @cached_property
    def control(self) -> Cell | None:
        """The cell of the uncompressed model with the same recovery; None where nothing is trained."""
        if self.training is None:
            return None
        return replace(
            self, recipe=trained(control_of(self.recipe), self.training.digest), used=frozenset(), calibration=None
        )

    @cached_property
    def beside(self) -> str | None:
        """The key of torch's cell with the same recipe, or of its baseline where torch cannot have the recipe. None for a
        cell of torch."""
        if self.backend is None:
            return None
        same = self.baseline() if left(self.recipe) else self
        return replace(same, backend=None).key

    def columns(self) -> Columns:
        """The identity and size columns of the cell's row."""
        columns = {
            "model": self.model.name,
            "weights": self.model.fingerprint[:12],
            **({} if self.original is None else {"original": self.original.fingerprint[:12]}),
            "revision": self.model.revision,
            "dtype": self.model.dtype,
            "stored": self.model.stored,
            **({} if self.model.linear_share is None else {"linear_share": round(self.model.linear_share, 4)}),
            "task": self.task.name,
            "samples": len(self.task.samples),
            "data": digest([self.task.fingerprint, self.task.content])[:12],
            "data_images": self.task.content[:12],
            "exif": READING["exif"],
            **self.task.columns,
            "generation": canonical_json({k: v for k, v in self.generation.as_dict().items() if v is not None}),
            "semantics": self.semantics,
            **self._recipe_columns(),
            **param_columns(self.recipe, self.model.params, self.model.role_params, self.model.block_params),
            **(self.calibration.columns() if self.calibration else {}),
            **(self.training.columns() if self.training else {}),
            **({"backend": backend_text(self.backend), "beside": self.beside} if self.backend else {}),
            **({"outside": outside_code.text(self.outside)} if self.outside else {}),
            **({"chat": self.model.config["chat"]} if self.model.config.get("chat") else {}),
            **(chat_columns(self.chat) if self.chat else {}),
        }
        return cast("Columns", columns)

    def _recipe_columns(self) -> dict[str, object]:
        """Of the recipe, and of what the checkpoint itself is quantized to."""
        own = self.model
        numbers = own.graph_numbers if runs_graphs(self.backend) else own.numbers
        found = recipe_columns(self.recipe, numbers)
        if own.held is None:
            return found
        plain = {**recipe_columns(self._untouched, numbers), "params": own.params}
        return held_columns(own.held, self.recipe, own.anatomy, found, plain, self.original is not None)

    def job(self) -> CellJob:
        """What a worker needs to run the cell, as JSON. It contains nothing of Hydra."""
        planned: PlannedTask = {"samples": self.task.fingerprint, "images": self.task.content}
        if code := outside_code.of_task(self.task_config):
            planned["outside"] = code
        job: CellJob = {
            "key": self.key,
            "model": self.model.config,
            "folder": str(self.model.folder),
            "task": cast("TaskJob", {**self.task_config, "planned": planned}),
            "generation": cast("GenerationJob", self.generation.as_dict()),
            "recipe": targets(self.recipe),
            "recipe_hash": self.recipe.hash,
            "baseline": self.baseline().key,
            "calibration": self.calibration.job() if self.calibration else None,
            "columns": self.columns(),
        }
        if self.backend:
            job["backend"] = self.backend
        if self.training and self.control:
            job["recovery"], job["control"] = self.training.job(), self.control.key
        if self.outside:
            job["outside"] = self.outside
        if self.chat:
            job["chat"] = chat_job(self.chat, self.identity)
            job["task"]["variant"] = self.chat["variant"]
        return job
