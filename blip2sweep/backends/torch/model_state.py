"""A loaded model and all that is kept of it from one cell to the next."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from blip2sweep.apply.calibration import Calibrator
from blip2sweep.apply.patch import Applied, Patch
from blip2sweep.apply.recovery.trainer import Outcome
from blip2sweep.backends.shares import whole
from blip2sweep.backends.torch import propagation
from blip2sweep.backends.torch.answers import Answer
from blip2sweep.backends.torch.flops import Computed, of_model
from blip2sweep.backends.torch.handover import Handover
from blip2sweep.backends.torch.sharing import AnswerCache
from blip2sweep.cache.tensors import Memo, budgets
from blip2sweep.canonical import canonical_json
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.errors import UserError
from blip2sweep.models.checkpoints import inspect
from blip2sweep.models.images import Features, Images, some_of
from blip2sweep.models.load import Loaded, load
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.back_end import without
from blip2sweep.recipe.chain import Entries
from blip2sweep.recipe.compact import expand
from blip2sweep.tasks import TaskData
from blip2sweep.tasks.calibration import Calibration
from blip2sweep.wire.lines import Cost
from blip2sweep.wire.pack import CellJob, JsonObject

GB = 10**9
FEATURES, WEIGHTS = 0.6, 0.4  # shares of the memory that is kept for each
RECIPES = 32  # layer by layer, that are kept: more than cells go side by side


@dataclass(eq=False)
class Recoveries:
    """What is kept of trainings: what they made, by name; the pixels of the last training samples, by their digest; the
    uncompressed model. columns: of the current cell."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    pixels: tuple[str, Features] | None = None
    teacher: Loaded | None = None
    columns: Cost = field(default_factory=dict)


@dataclass(eq=False)
class ModelState:
    """One model on the device. name: the composed `model` section, as canonical JSON."""

    name: str
    loaded: Loaded
    patch: Patch
    memo: Memo  # features and states
    weights: Memo  # quantized weights
    entries: Entries
    calibrator: Calibrator | None = None
    handover: Handover = field(default_factory=Handover)  # of the current cell
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    plain: tuple[str, propagation.States] | None = None  # full precision's states, of which task and prompt
    prepared: dict[str, Prepared] = field(default_factory=dict)  # what calibration made of the current cell
    made: dict[str, dict[str, Prepared]] = field(default_factory=dict)  # and for its steps before quantization, by kind
    recoveries: Recoveries = field(default_factory=Recoveries)
    origins: dict[str, JsonObject] = field(default_factory=dict)
    images: dict[str, dict[str, Images]] = field(default_factory=dict)  # of one task, all of its images or a round's
    answers: AnswerCache[Answer] = field(default_factory=AnswerCache)
    batch_sizes: dict[str, int] = field(default_factory=dict)  # {batches: the size that memory allowed so far}

    recipes: OrderedDict[str, Recipe] = field(
        default_factory=OrderedDict
    )  # {JSON: the recipe read from it} of the last jobs
    in_model: tuple[str, Applied] | None = None  # the cell whose recipe was put into the model last

    def pictures(self, job: CellJob, data: TaskData, workers: int) -> Features | Images:
        """The images of a job, decoded and preprocessed once for all cells. data: of its task. workers: that decode.

        Only those of one task are kept. A round takes its own of those of all images, where these were decoded.
        """
        name, task = canonical_json(job["task"]), canonical_json(whole(job)["task"])
        if task not in self.images:
            self.images = {task: {}}
        known = self.images[task]
        if name not in known:
            if task in known and (kept := known[task].kept) is not None:
                return some_of(kept, data.images)
            known[name] = Images(self.loaded, data, workers, job["task"]["on_bad_image"])
        return known[name]

    @cached_property
    def computed(self) -> Computed:
        """What the model computes of one sample."""
        return of_model(json.loads(self.name), self.loaded.model.config.to_dict())

    @property
    def measured(self) -> dict[str, Prepared]:
        """{path: what calibration made of it last} of the current cell."""
        return {path: x for made in (*self.made.values(), self.prepared) for path, x in made.items()}


def load_state(name: str, job: CellJob, device: str, memory_gb: float | None, remember: bool) -> ModelState:
    """Load the model of a job.

    memory_gb: of the device and of the host, each; None: a share of what is free. remember: False keeps nothing of one
    cell for the next.
    """
    check_unchanged(job)
    return state_of(name, load(job["model"], Path(job["folder"]), device=device), memory_gb, remember)


def state_of(name: str, loaded: Loaded, memory_gb: float | None, remember: bool) -> ModelState:
    """A model that is loaded, with nothing kept yet. The arguments are those of `load_state`."""
    budget = budgets(loaded.device, None if memory_gb is None else int(memory_gb * GB)) if remember else (0, 0)
    features, weights = (Memo(loaded.device, *(int(b * share) for b in budget)) for share in (FEATURES, WEIGHTS))
    return ModelState(name, loaded, Patch(loaded, weights), features, weights, Entries(loaded.anatomy))


def check_unchanged(job: CellJob) -> None:
    """Raise UserError where a checkpoint is not the one that was planned: its row would be another model's."""
    planned, found = job["columns"]["weights"], inspect(Path(job["folder"])).fingerprint
    if not found.startswith(planned):
        raise UserError(
            f"{job['folder']}: changed since it was planned (fingerprint {planned}, now {found[:12]}); right: start the "
            f"sweep again, so that its cells are those of the new weights"
        )


def recipe_of(state: ModelState, job: CellJob) -> Recipe:
    """The job's recipe, layer by layer, without what another back end rounds. Raises RuntimeError where it is not the one
    that was planned."""
    name = canonical_json([job["recipe"], job["recipe_hash"]])
    if name not in state.recipes:  # the rounds of a cell have one, and cells go side by side
        recipe = expand(job["recipe"], state.loaded.anatomy)
        if not recipe.empty and recipe.hash != job["recipe_hash"]:
            raise RuntimeError(f"recipe of {job['key']} changed between planning and running")
        state.recipes[name] = without(recipe)
    state.recipes.move_to_end(name)
    while len(state.recipes) > RECIPES:
        state.recipes.popitem(last=False)
    return state.recipes[name]
