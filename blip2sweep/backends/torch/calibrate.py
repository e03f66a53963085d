"""What calibration makes of a cell's layers, before they are put into the model."""

from __future__ import annotations

from blip2sweep.apply.calibration import Blocks, Calibrator, origin, same_samples, warn_short
from blip2sweep.backends.torch.handover import Handover
from blip2sweep.backends.torch.model_state import ModelState
from blip2sweep.backends.torch.provenance import computed_by
from blip2sweep.cache.disk import Store
from blip2sweep.canonical import canonical_json
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.recipe import Recipe
from blip2sweep.tasks.calibration import Calibration
from blip2sweep.wire.pack import CellJob


def prepare(state: ModelState, job: CellJob, recipe: Recipe, device: str, store: Store | None) -> dict[str, Prepared]:
    """{layer: weights that calibration made}; empty for a cell that calibrates nothing.

    Layers are measured behind the steps that come before quantization. `state.prepared` is set to the result.
    """
    state.prepared = {}
    state.handover = Handover(job.get("share"), state.loaded.device)
    if job.get("calibration"):
        state.patch.apply(recipe.before)
        state.prepared = state.handover.calibrated(lambda: _calibrated(state, job, recipe, device, store))
    return state.prepared


def _calibrated(
    state: ModelState, job: CellJob, recipe: Recipe, device: str, store: Store | None
) -> dict[str, Prepared]:
    prepared = _calibrator(state, job, device, store)(recipe, samples_of(state, job))
    warn_short(prepared)
    return prepared


def samples_of(state: ModelState, job: CellJob) -> Calibration:
    """The calibration samples that a cell was planned with. They are chosen once for all cells that share them."""
    assert job["calibration"] is not None
    name = canonical_json(job["calibration"])
    if name not in state.calibrations:
        state.calibrations[name] = same_samples(job["calibration"])
    return state.calibrations[name]


def _calibrator(state: ModelState, job: CellJob, device: str, store: Store | None) -> Calibrator:
    if state.calibrator is None:
        came_from = origin(state.loaded, job, computed_by(device))
        state.calibrator = Calibrator(state.loaded, came_from, state.weights, Blocks(state.weights, store))
    return state.calibrator
