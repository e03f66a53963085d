"""What recovery makes of a cell's layers, before the whole recipe is put into the model: recalled, or trained now."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from blip2sweep.apply.calibration import origin
from blip2sweep.apply.recovery.course import Course, train
from blip2sweep.apply.recovery.deterministic import CUBLAS, WORKSPACE
from blip2sweep.apply.recovery.group import Alone
from blip2sweep.apply.recovery.kept import adapter_digest, from_bytes, from_file, to_bytes, to_file
from blip2sweep.apply.recovery.lessons import check_learns, pixels_of
from blip2sweep.apply.recovery.progress import Checkpoints
from blip2sweep.apply.recovery.several import CourseJob, train_together
from blip2sweep.apply.recovery.teacher import teacher_of
from blip2sweep.backends.torch.model_state import ModelState
from blip2sweep.backends.torch.provenance import computed_by
from blip2sweep.cache.disk import RECOVERY, Store
from blip2sweep.canonical import digest
from blip2sweep.compression.recover import DISTILL
from blip2sweep.compression.recover.step import layers_of
from blip2sweep.compression.step import QUANTIZE, RECOVER
from blip2sweep.console import work_log
from blip2sweep.errors import UserError
from blip2sweep.machine import stopping
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.compact import targets
from blip2sweep.tasks.training import planned_training
from blip2sweep.wire.lines import Cost
from blip2sweep.wire.pack import CellJob, Settings
from blip2sweep.wire.recovery import RecoveryJob

if TYPE_CHECKING:
    from blip2sweep.apply.recovery.trainer import Outcome
    from blip2sweep.compression.recover.spec import Recovery
    from blip2sweep.models.images import Features
    from blip2sweep.models.load import Loaded

MOST = 4  # trainings that are kept in memory


class Recoverer:
    """Trains cells, or recalls what an equal training made.

    settings: `cache_dir`, for checkpoints; store: for what was trained; `data_workers`.
    """

    def __init__(self, settings: Settings, device: str, store: Store | None, remember: bool) -> None:
        self.settings, self.device, self.store, self.remember = settings, device, store, remember

    def __call__(self, state: ModelState, job: CellJob, recipe: Recipe) -> Mapping[str, object]:
        """{path: what was trained for the layer}; empty for a cell without recovery.

        What calibration made of the cell is in the state. The model has any recipe in it, before and after.
        """
        state.recoveries.columns = {}
        pairs = [pair for i, kind in enumerate(recipe.kinds) if kind == RECOVER for pair in layers_of(recipe.step(i))]
        if not pairs:
            return {}
        spec, paths = _one(s for _, s in pairs), tuple(x.path for x, _ in pairs)
        began, name = time.monotonic(), self._name(state, job, recipe, spec, paths)
        known = self._known(state, name)

        def found() -> Outcome:
            return known or self._trained(state, job, recipe, spec, paths, name)

        outcome = state.handover.shared(found, to_file, from_file)
        if known is None:
            self._keep(state, name, outcome)
        state.recoveries.columns = _columns(outcome, known is not None, time.monotonic() - began)
        return outcome.trained

    def _name(
        self, state: ModelState, job: CellJob, recipe: Recipe, spec: Recovery, paths: Sequence[str]
    ) -> str:  # fmt: skip
        """The name of everything that decides the result. Cells that differ in what comes after training share it."""
        libraries = [f"{n} {version(n)}" for n in _libraries(spec)]
        options = {k: v for k, v in spec.training().items() if k != "trained_on"}
        came_from = origin(state.loaded, job, computed_by(self.device))
        samples = {k: v for k, v in _section(job).items() if k != "task"}
        return digest([came_from, recipe.until(RECOVER).hash, options, list(paths), samples, libraries])

    def _known(self, state: ModelState, name: str) -> Outcome | None:
        found = state.recoveries.outcomes.get(name)
        if found is None and self.store is not None and (payload := self.store.get(name)) is not None:
            found = from_bytes(payload, state.loaded.device)
            self._remember(state, name, found)
        return found

    def _keep(self, state: ModelState, name: str, outcome: Outcome) -> None:
        self._remember(state, name, outcome)
        if self.store is not None:
            self.store.put(name, to_bytes(outcome))
        self._checkpoints(name).remove()

    def _remember(self, state: ModelState, name: str, outcome: Outcome) -> None:
        if self.remember:
            kept = state.recoveries.outcomes
            kept[name] = outcome
            for oldest in list(kept)[:-MOST]:
                del kept[oldest]

    def _checkpoints(self, name: str) -> Checkpoints:
        folder = self.settings.get("cache_dir")
        return Checkpoints(Path(folder) / RECOVERY / f"{name}.safetensors" if folder else None, name)

    # ---- training

    def _trained(
        self, state: ModelState, job: CellJob, recipe: Recipe, spec: Recovery, paths: tuple[str, ...], name: str
    ) -> Outcome:  # fmt: skip
        check_learns(state.loaded)
        if spec.processes > 1:
            return self._together(state, job, recipe, spec, paths, name)
        teacher = _teacher(state, job) if spec.loss == DISTILL else None
        course = Course(spec, paths, planned_training(_section(job)))
        pixels = self._pixels(state, course)
        state.patch.apply(recipe.until(RECOVER), state.prepared, state.made)
        return train(state.loaded, course, teacher, Alone(), self._checkpoints(name), pixels)

    def _together(
        self, state: ModelState, job: CellJob, recipe: Recipe, spec: Recovery, paths: tuple[str, ...], name: str
    ) -> Outcome:  # fmt: skip
        path = self._checkpoints(name).path
        whole: CourseJob = {
            "model": job["model"], "folder": job["folder"], "device": self.device, "recipe": targets(recipe.until(RECOVER)),
            "recovery": _section(job), "spec": spec.fields(), "paths": list(paths),
            "checkpoint": str(path) if path else None, "name": name, "parent": os.getpid(),
            "told": work_log.told(),
        }  # fmt: skip
        return train_together(whole, {QUANTIZE: state.prepared, **state.made}, spec.processes, stopping.asked)

    def _pixels(self, state: ModelState, course: Course) -> Features:
        """The pixels of the training images, decoded once for all cells that train on them."""
        name = digest([course.training.identity["samples"], course.training.identity["images"]])
        if state.recoveries.pixels is None or state.recoveries.pixels[0] != name:
            state.recoveries.pixels = None  # free the last ones first
            workers = self.settings.get("data_workers") or 0
            state.recoveries.pixels = name, pixels_of(state.loaded, course.training, workers)
        return state.recoveries.pixels[1]


def check_packed(recipe: Recipe, packed: Recipe) -> None:
    """Raise UserError where layers are packed and others are trained: no gradient goes through a packed layer."""
    if RECOVER in recipe.further and not packed.empty:
        raise UserError("recover: packed layers pass on no gradient; right: quant.packed=false, or recover=none")


def prepare_device(jobs: Sequence[CellJob]) -> None:
    """Set what cuBLAS has to know before its first call, where a cell is to be trained."""
    if any("recovery" in job for job in jobs):
        os.environ.setdefault(CUBLAS, WORKSPACE)


def _teacher(state: ModelState, job: CellJob) -> Loaded:
    if state.recoveries.teacher is None:
        state.patch.restore()
        state.recoveries.teacher = teacher_of(state.loaded, job["model"])
    return state.recoveries.teacher


def _section(job: CellJob) -> RecoveryJob:
    if "recovery" not in job:
        raise UserError(f"cell {job['key']}: its pack has no training samples; right: the same command again")
    return job["recovery"]


def _one(specs: Iterable[Recovery]) -> Recovery:
    """What all layers of a recipe are trained by. Whether they are merged does not matter here."""
    found = list(specs)
    if len({digest(s.training()) for s in found}) > 1:
        raise UserError("recipe: its layers are trained in several ways; right: one recovery for all of them")
    return found[0]


def _libraries(spec: Recovery) -> list[str]:
    """What trains, besides torch."""
    return [*(["peft"] if spec.has_adapters else []), *(["accelerate"] if spec.processes > 1 else [])]


def _columns(outcome: Outcome, known: bool, seconds: float) -> Cost:
    """recover_steps: the step that was chosen. recover_loss: of the held-out references there, recover_loss_before: of
    the compressed model. adapter: the digest of the tensors. seconds_recover: of the whole training, in this cell or in
    one before it. seconds_trained: in this cell.
    """
    losses: Cost = {}
    if outcome.losses:
        losses = {"recover_loss": outcome.losses[outcome.step], "recover_loss_before": outcome.losses[0]}
    found: Cost = {"recover_steps": outcome.step, **losses, "adapter": adapter_digest(outcome)}
    found |= {"seconds_recover": outcome.seconds, "seconds_trained": seconds, "hits_recover": int(known)}
    found = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in found.items()}
    return found if outcome.reproducible else {**found, "reproducible": False}
