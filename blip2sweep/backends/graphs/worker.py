"""Runs a model as graphs: torch makes it, a format writes it, and sessions of a library run the files.

Prompts, batches, requests and records are those of the torch back end (`evaluate`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import torch

from blip2sweep.backends.backend import Answered
from blip2sweep.backends.graphs.cells import Cells, Compile, Ready
from blip2sweep.backends.graphs.timing import latency_of
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.backends.torch.cost import evaluation_columns
from blip2sweep.backends.torch.evaluate import Evaluation, evaluate
from blip2sweep.backends.torch.flops import flop_columns, of_model
from blip2sweep.backends.torch.provenance import provenance
from blip2sweep.canonical import canonical_json
from blip2sweep.exporting import Format
from blip2sweep.models.images import Images
from blip2sweep.models.load import Loaded
from blip2sweep.recipe.compact import expand
from blip2sweep.tasks.generation import Generation
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.wire.latency import Latency
from blip2sweep.wire.lines import Provenance
from blip2sweep.wire.pack import CellJob, JsonObject, Settings


class GraphWorker:
    """Runs cells. See `backends.backend.Backend` and `Times`.

    form: the format whose files are run. compiled: makes a session of each graph, by name, of the files in a folder that
    is removed afterwards. libraries: {name: version} of what writes and runs them. device_name: where it runs.
    """

    def __init__(
        self, settings: Settings, form: Format, compiled: Compile, libraries: JsonObject, device_name: str
    ) -> None:
        self.settings, self.libraries, self.device_name = settings, libraries, device_name
        self.torch = TorchBackend({**settings, "device": "cpu"})
        self.cells = Cells(settings, self.torch, form, compiled, libraries)
        self._images: tuple[str, Images] | None = None

    @property
    def warning(self) -> str | None:
        return self.torch.warning

    def expect(self, jobs: Sequence[CellJob]) -> None:
        self.torch.expect(jobs)

    def __call__(self, job: CellJob, batch_size: int | None = None) -> Answered:
        began = time.perf_counter()
        ready = self.cells(job)
        made_after = time.perf_counter() - began
        evaluation = self._evaluate(ready.loaded, job, batch_size or self.settings.get("batch_size"))
        recipe, config = expand(job["recipe"], ready.loaded.anatomy), ready.loaded.model.config.to_dict()
        cost = evaluation_columns(evaluation) | ready.sizes
        cost |= flop_columns(evaluation.asked, recipe, of_model(job["model"], config))
        cost |= {"seconds_apply": made_after, "seconds": time.perf_counter() - began}
        changed = len(recipe.schemes.keys() | recipe.layers_of_further_steps)
        return Answered(Predictions.of(evaluation.records), cost, changed, self._provenance(ready))

    def measure(self, job: CellJob) -> list[Latency]:
        """Time a cell, the same back end's uncompressed model, and torch's, in turns."""
        most = self.settings.get("batch_size")
        return latency_of(self.cells, job, self.torch.task(job), partial(self.torch.plain, job), most, self.device_name)

    def _evaluate(self, loaded: Loaded, job: CellJob, batch_size: int | None) -> Evaluation:
        return evaluate(
            loaded, self.torch.task(job), Generation(**job["generation"]), batch_size=batch_size,
            nll_references=job["task"]["nll_references"], features=self._pixels(loaded, job),
        )  # fmt: skip

    def _pixels(self, loaded: Loaded, job: CellJob) -> Images:
        """The images of the task, decoded once for all cells of a model; those of one task are kept."""
        name = canonical_json([job["model"], job["task"]])
        if self._images is None or self._images[0] != name:
            workers, skip = self.settings.get("data_workers") or 0, job["task"]["on_bad_image"]
            self._images = name, Images(loaded, self.torch.task(job), workers, skip)
        return self._images[1]

    def _provenance(self, ready: Ready) -> Provenance:
        own = provenance(ready.loaded, threads_of(self.settings))
        libraries = " ".join(f"{name} {version}" for name, version in self.libraries.items())
        return {**own, "versions": f"{own['versions']} {libraries}"}


def threads_of(settings: Settings) -> int:
    """The CPU threads that a worker computes on."""
    return settings.get("threads") or torch.get_num_threads()
