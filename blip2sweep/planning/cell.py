"""Cell and key: one configuration, resolved, and its identity.

The key hashes what determines the cell's predictions and nothing else: weights, dtypes, recipe, samples, prompt,
generation. How it was written, where it runs, batch sizes and metrics are not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from blip2sweep import outside
from blip2sweep.backends.backend import identity_of
from blip2sweep.canonical import canonical_json, digest
from blip2sweep.errors import UserError
from blip2sweep.models import checkpoints
from blip2sweep.models.anatomy import Anatomy, anatomy
from blip2sweep.models.architecture import family
from blip2sweep.models.dtypes import part_dtypes, stage_dtypes
from blip2sweep.models.location import locate
from blip2sweep.planning import outside_code
from blip2sweep.planning.chosen_backend import chosen_backend
from blip2sweep.recipe import Recipe, resolve_recipe
from blip2sweep.recipe.calibrated import check_packed, check_upstream, part_calibrates, stamped
from blip2sweep.recipe.columns import recipe_columns
from blip2sweep.recipe.compact import targets
from blip2sweep.recipe.semantics import semantics
from blip2sweep.tasks import TaskData, load_task
from blip2sweep.tasks.calibration import Calibration, calibration, check, check_disjoint, check_other_pictures, settings
from blip2sweep.tasks.content import READING
from blip2sweep.tasks.generation import Generation, resolve_generation
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
class Model:
    """A model as planning sees it: anatomy, dtypes, and the checkpoint's fingerprint; no weights are read."""

    config: dict[str, Any]
    anatomy: Anatomy
    folder: Path
    revision: str | None
    fingerprint: str
    params: int
    dtypes: dict[str, str]  # {part: name}
    stage_dtypes: dict[str, str]

    @property
    def name(self) -> str:
        return str(self.config["name"])

    @property
    def presets(self) -> str:
        """The family of language model whose generation presets it takes."""
        return family(self.config).presets or str(self.config["family"])

    @property
    def dtype(self) -> str:
        """One word for the table: `float32`, or part by part where they differ."""
        words = list(dict.fromkeys(self.dtypes.values()))
        return words[0] if len(words) == 1 else " ".join(f"{k}:{v}" for k, v in self.dtypes.items())


@dataclass(frozen=True, eq=False)
class Cell:
    """One configuration of the grid."""

    model: Model
    recipe: Recipe
    task: TaskData
    task_config: dict[str, Any]
    generation: Generation
    used: frozenset[str]
    calibration: Calibration | None = None
    backend: BackendChoice | None = None  # None: torch, of which an identity says nothing

    @cached_property
    def semantics(self) -> int:
        methods = (m for part in self.recipe.parts.values() for m in part.methods)
        return semantics(methods, self.recipe.further)

    @cached_property
    def outside(self) -> dict[str, OutsideCode]:
        """The code it uses that is no part of this package."""
        tasks = [self.task_config, *([self.calibration.task] if self.calibration else [])]
        return outside_code.of_cell(self.model.config, tasks, self.recipe, self.backend)

    @cached_property
    def identity(self) -> JsonObject:
        """Everything that determines the predictions, resolved."""
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
            "generation": asdict(self.generation),
            **({"backend": backend} if backend else {}),
            **({"outside": outside.identity(self.outside)} if self.outside else {}),
        }

    @cached_property
    def key(self) -> str:
        """First 12 hex digits of the sha256 of the identity."""
        return digest(self.identity)[:12]

    @property
    def is_baseline(self) -> bool:
        return self.recipe.empty

    def baseline(self) -> Cell:
        """The cell with the empty recipe: same model, dtypes, task, generation and back end."""
        untouched = Recipe.untouched({n: p.part for n, p in self.recipe.parts.items()})
        return replace(self, recipe=untouched, used=frozenset(), calibration=None)

    def columns(self) -> Columns:
        """The identity and size columns of the cell's row."""
        found = {
            "model": self.model.name,
            "weights": self.model.fingerprint[:12],
            "revision": self.model.revision,
            "dtype": self.model.dtype,
            "task": self.task.name,
            "samples": len(self.task.samples),
            "data": digest([self.task.fingerprint, self.task.content])[:12],
            "data_images": self.task.content[:12],
            "exif": READING["exif"],
            **self.task.columns,
            "generation": canonical_json({k: v for k, v in asdict(self.generation).items() if v is not None}),
            "semantics": self.semantics,
            **recipe_columns(self.recipe, self.model.params),
            **(self.calibration.columns() if self.calibration else {}),
            **({"backend": self.backend["name"]} if self.backend else {}),
            **({"outside": outside_code.text(self.outside)} if self.outside else {}),
        }
        return cast("Columns", found)

    def job(self) -> CellJob:
        """What a worker needs to run the cell, as JSON; nothing of Hydra in it."""
        planned: PlannedTask = {"samples": self.task.fingerprint, "images": self.task.content}
        if code := outside_code.of_task(self.task_config):
            planned["outside"] = code
        job: CellJob = {
            "key": self.key,
            "model": self.model.config,
            "folder": str(self.model.folder),
            "task": cast("TaskJob", {**self.task_config, "planned": planned}),
            "generation": cast("GenerationJob", asdict(self.generation)),
            "recipe": targets(self.recipe),
            "recipe_hash": self.recipe.hash,
            "baseline": self.baseline().key,
            "calibration": self.calibration.job() if self.calibration else None,
            "columns": self.columns(),
        }
        if self.backend:
            job["backend"] = self.backend
        if self.outside:
            job["outside"] = self.outside
        return job


class Cells:
    """Makes cells from configs. Models, tasks and generation settings that several cells share are read once."""

    def __init__(self) -> None:
        self._memo: dict[tuple[str, str], Any] = {}

    def __call__(self, config: Mapping[str, Any]) -> Cell:
        model = self._once("model", config["model"], _model)
        recipe = resolve_recipe(config, model.anatomy)
        task_config = dict(config["task"])
        task = self._once("task", task_config, _with_content)
        asked = {"generation": config["generation"], "kind": task.kind, "family": model.presets}
        generation, used = self._once(
            "generation", asked, lambda a: resolve_generation(a["generation"], a["kind"], a["family"])
        )
        check_packed(recipe, model.dtypes)
        backend = chosen_backend(config.get("backend"), recipe)
        measured, used = self._calibration(config, model, recipe, task), used | recipe.used
        if measured is not None:
            recipe, used = stamped(recipe, measured.digest), used | _calibration_keys(recipe)
        cell = Cell(model, recipe, task, task_config, generation, used, measured, backend)
        assert cell.outside is not None  # a name that is taken twice is told here
        return cell

    def _calibration(
        self, config: Mapping[str, Any], model: Model, recipe: Recipe, task: TaskData
    ) -> Calibration | None:
        """What the recipe's calibrated layers are measured on; None where there are none."""
        if not any(part_calibrates(p) for p in recipe.parts.values()):
            return None
        chosen = config["calibration"]
        check(chosen)
        check_upstream(recipe, chosen["upstream"])
        split_config = self._once("split", [chosen, config["task"]], lambda both: settings(*both))
        split = self._once("samples", split_config, load_task)
        _check_text_only(chosen, recipe, split, model)
        self._once(
            "disjoint", [split_config, config["task"]], lambda both: check_disjoint(split, both[0], task, both[1])
        )
        asked = [chosen, split_config, config["generation"], model.presets]
        drawn = self._once("calibration", asked, lambda a: _hashed(calibration(a[0], split, *a[1:])))
        if not chosen["text_only"]:
            seen = [chosen["n_samples"], chosen["seed"], split_config, config["task"]]
            self._once("pictures", seen, lambda a: check_other_pictures(drawn.data, a[2]["split"], task))
        return drawn

    def _once(self, what: str, section: Any, make: Callable[[Any], Any]) -> Any:
        name = (what, canonical_json(section))
        if name not in self._memo:
            try:
                self._memo[name] = make(section)
            except UserError as error:  # nor is what is wrong looked for once a cell
                self._memo[name] = error
        found = self._memo[name]
        if isinstance(found, UserError):
            raise found.with_traceback(None)
        return found


def _with_content(config: Mapping[str, Any]) -> TaskData:
    """The task, its images hashed: one that cannot be read is told here."""
    task = load_task(config)
    assert task.content
    return task


def _hashed(chosen: Calibration) -> Calibration:
    assert chosen.identity
    return chosen


def _check_text_only(config: Mapping[str, Any], recipe: Recipe, split: TaskData, model: Model) -> None:
    seeing = [n for n, p in recipe.parts.items() if not p.part.reads_text and part_calibrates(p)]
    if config["text_only"] and seeing:
        reading = "+".join(n for n, p in recipe.parts.items() if p.part.reads_text)
        raise UserError(
            f"calibration={config['name']}: has no images, which {seeing[0]} needs; right: part={reading}, or calibration=task"
        )
    if config["text_only"] and family(model.config).prompt_alone and not split.rules.ASKS:
        raise UserError(
            f"calibration={config['name']}: a {split.kind} has no question, so the encoder of {model.name} would read the same "
            f"few tokens every time; right: calibration=task, or questions: calibration=vqav2 calibration.text_only=true"
        )


def _calibration_keys(recipe: Recipe) -> frozenset[str]:
    """The config keys that calibration takes; the weight of image tokens is one of the language model."""
    names = ("n_samples", "seed", "upstream", "threads", "split", "data_dir")
    keys = {"calibration", *(f"calibration.{k}" for k in names)}
    reading = any(p.part.reads_text and part_calibrates(p) for p in recipe.parts.values())
    return frozenset(keys | ({"calibration.image_token_weight"} if reading else set()))


def _model(config: Mapping[str, Any]) -> Model:
    shape = anatomy(config)
    dtypes, by_stage = part_dtypes(config, shape), stage_dtypes(config, shape)
    found = locate(config)
    half = [stage for stage, dtype in by_stage.items() if dtype == "float16"]
    checked = checkpoints.check(found.folder, config, half)
    return Model(
        dict(config), shape, found.folder, found.revision, checked.fingerprint, checked.params, dtypes, by_stage
    )
