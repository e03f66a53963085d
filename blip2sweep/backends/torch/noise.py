"""Noise floors: how many outputs differ when a cell is run again in a way that should make no difference."""

from __future__ import annotations

from collections.abc import Callable

from blip2sweep.apply.calibration import variants
from blip2sweep.apply.packed import packed_layers
from blip2sweep.backends.backend import SecondRun
from blip2sweep.backends.torch.calibrate import calibrate, samples_of
from blip2sweep.backends.torch.evaluate import Evaluation
from blip2sweep.backends.torch.model_state import ModelState
from blip2sweep.models.dtypes import HALF
from blip2sweep.recipe import Recipe
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.wire.lines import Flips
from blip2sweep.wire.pack import CellJob


def batch_size_noise(
    state: ModelState, job: CellJob, first: Evaluation, evaluate: Callable[[int], Evaluation]
) -> SecondRun | None:
    """A second run of a baseline in half precision, at half the batch size, with each question's picture read anew.

    None for other cells. evaluate: runs the cell at a batch size. The second run shares nothing, or it would be compared with itself.
    """
    if job["key"] != job["baseline"] or not set(state.loaded.dtypes.values()) & set(HALF):
        return None
    size = int(first.cost["batch_size"])
    second = evaluate(max(1, size // 2))
    return SecondRun(
        Predictions.of(second.records), {"batch_sizes": [size, max(1, size // 2)], **_flips(first, second)}
    )


def calibration_noise(
    state: ModelState,
    job: CellJob,
    recipe: Recipe,
    packed: Recipe,
    first: Evaluation,
    evaluate: Callable[[], Evaluation],
) -> dict[str, SecondRun]:
    """{name: second run} of a calibrated cell: the same recipe, calibrated in other ways that are as good.

    The model is left as loaded.
    """
    found = {}
    for name, other in variants(samples_of(state, job)).items():
        calibrate(state, recipe, other)
        state.patch.apply(recipe, state.prepared, state.made)
        with packed_layers(state.loaded, packed):
            second = evaluate()
        summary = {**other.arithmetic, "seed": other.seed, **_flips(first, second)}
        found[name] = SecondRun(Predictions.of(second.records), summary)
    state.patch.restore()
    return found


def hand_over(state: ModelState, job: CellJob, recipe: Recipe) -> None:
    """Make the calibrations of `calibration_noise` for the other processes of the cell, where this one has no outputs."""
    if not state.handover.gives:
        return
    for other in variants(samples_of(state, job)).values():
        calibrate(state, recipe, other)


def _flips(first: Evaluation, second: Evaluation) -> Flips:
    """How many outputs of a cell differ in a second run."""
    outputs = (Predictions.of(evaluation.records).outputs for evaluation in (first, second))
    flips = sum(a != b for a, b in zip(*outputs, strict=True))
    return {"flips": flips, "flip_rate": flips / max(1, len(first.records))}
