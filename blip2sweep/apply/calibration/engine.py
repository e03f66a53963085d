"""Quantizes the calibrated layers of a recipe block by block. Each is measured on what the blocks before it put out.

Memory holds one hidden state for each batch and the statistics of one block. Measurements and finished blocks are kept
by content. So cells that share samples and earlier layers share one pass, and a block is quantized only once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from blip2sweep.apply.calibration.batches import CalibrationBatches
from blip2sweep.apply.calibration.finished import Blocks
from blip2sweep.apply.calibration.part_work import PartWork
from blip2sweep.apply.patch import Patch
from blip2sweep.cache.tensors import Memo
from blip2sweep.canonical import digest
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.threads import fixed_threads
from blip2sweep.machine.memory import is_out_of_memory
from blip2sweep.models.load import Loaded
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.calibrated import part_calibrates
from blip2sweep.tasks.calibration import Calibration
from blip2sweep.wire.pack import JsonObject


class Calibrator:
    """Makes `{path: Prepared}` of recipes.

    When it is called, the model must be as loaded except for the steps that come before quantization (`Recipe.before`).
    It is the same afterwards.

    origin: everything else that determines the measurements (weights, dtypes, device, versions), as JSON. memo:
    statistics by content. blocks: finished blocks by content.
    """

    def __init__(self, loaded: Loaded, origin: JsonObject, memo: Memo, blocks: Blocks) -> None:
        self.loaded, self.origin, self.memo, self.blocks = loaded, origin, memo, blocks
        self._latest: tuple[str, CalibrationBatches] | None = None

    def __call__(self, recipe: Recipe, calibration: Calibration) -> dict[str, Prepared]:
        """Calibrate all layers of a recipe that need it, on the calibration's own number of threads.

        So the weights do not depend on the number of threads of the machine. Raises FloatingPointError naming a layer
        whose inputs are not finite, and MemoryError when memory runs out.
        """
        with fixed_threads(calibration.threads):
            return self._parts(recipe, calibration)

    def _parts(self, recipe: Recipe, calibration: Calibration) -> dict[str, Prepared]:
        before = [] if recipe.before.empty else [recipe.before.hash]
        calibration_batches, found = self._calibration_batches(calibration, before), dict[str, Prepared]()
        in_use, whole_model = calibration.upstream != "full", calibration.upstream == "model"
        with understandable_oom(), Patch(self.loaded) as patch, torch.no_grad():
            for part in recipe.parts.values():
                if part_calibrates(part):
                    measured_on = [self.origin, calibration.measured(part.part.reads_text), before]
                    found |= PartWork(self, part, calibration_batches, patch, digest(measured_on), in_use).all()
                if whole_model:
                    patch.put(part.touched(), found)
                    before += [] if part.empty else [part.hash]
                else:
                    patch.restore()
        return found

    def _calibration_batches(self, calibration: Calibration, before: list[str]) -> CalibrationBatches:
        """The samples and their features. They are kept for the next cell, unless quantized parts compute them."""
        if calibration.upstream == "model":
            return CalibrationBatches(self.loaded, calibration)
        name = digest([calibration.measured(True), before])
        if self._latest is None or self._latest[0] != name:
            self._latest = None  # free the last one first
            self._latest = name, CalibrationBatches(self.loaded, calibration)
        return self._latest[1]


@contextmanager
def understandable_oom() -> Iterator[None]:
    """Out of memory becomes a MemoryError that names the setting to change. The ledger calls it `oom`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(f"calibration ran out of memory ({error}); right: a smaller calibration.n_samples") from error
