"""How far a cell's activations are from those of full precision. Measured on request, on the task's first samples."""

from __future__ import annotations

from blip2sweep.backends.torch import propagation
from blip2sweep.backends.torch.model_state import ModelState
from blip2sweep.canonical import canonical_json
from blip2sweep.compression.quantize.threads import fixed_threads
from blip2sweep.tasks import TaskData
from blip2sweep.tasks.calibration import Calibration
from blip2sweep.tasks.question_text import RAW
from blip2sweep.wire.pack import CellJob, JsonObject


def remember_plain(state: ModelState, job: CellJob, task: TaskData) -> None:
    """Keep the outputs of full precision, before the recipe is in the model. Once for all cells of a task."""
    name = canonical_json([job["task"], *_wording(job)])
    if state.plain is None or state.plain[0] != name:
        state.patch.restore()
        with fixed_threads(1):  # as in calibration: unlike words, distances change with every rounding
            state.plain = (name, propagation.states(state.loaded, _first(job, task)))


def moved(state: ModelState, job: CellJob, task: TaskData) -> list[JsonObject]:
    """How far each block's output is from that of full precision, with the recipe in the model."""
    assert state.plain is not None
    with fixed_threads(1):
        return propagation.compare(state.plain[1], propagation.states(state.loaded, _first(job, task)))


def _first(job: CellJob, task: TaskData) -> Calibration:
    prompt, question = _wording(job)
    return propagation.first_samples(task, job["task"], prompt, question=question)


def _wording(job: CellJob) -> tuple[str | None, str]:
    """How the questions and prompts of a cell are worded."""
    return job["generation"]["prompt"], job["generation"].get("question", RAW)
