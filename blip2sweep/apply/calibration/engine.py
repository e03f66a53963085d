"""Quantizes the calibrated layers of a recipe block by block. Each is measured on what the blocks before it put out.

Before that, the masks of sparse layers are made in the same way.

Memory holds one hidden state for each batch and the statistics of one block. Measurements and finished blocks are kept
by content. So cells that share samples and earlier layers share one pass, and a block is quantized only once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial

import torch

from blip2sweep.apply.calibration.batches import CalibrationBatches
from blip2sweep.apply.calibration.finished import Blocks
from blip2sweep.apply.calibration.masks import PartMasks
from blip2sweep.apply.calibration.part_inputs import PartInputs
from blip2sweep.apply.calibration.part_work import PartWork
from blip2sweep.apply.patch import Patch
from blip2sweep.cache.tensors import Memo
from blip2sweep.canonical import digest
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.threads import fixed_threads
from blip2sweep.compression.sparsity import step as sparsity
from blip2sweep.compression.step import QUANTIZE, SPARSITY
from blip2sweep.compression.undo import Undo
from blip2sweep.machine.memory import is_out_of_memory
from blip2sweep.models.load import Loaded
from blip2sweep.recipe import PartRecipe, Recipe
from blip2sweep.recipe.calibrated import beyond_sparsity, part_calibrates, part_norms, reaching
from blip2sweep.tasks.calibration import Calibration
from blip2sweep.wire.pack import JsonObject


class Calibrator:
    """Makes `{path: Prepared}` of recipes: `masks` for sparsity, a call for quantization.

    The model must be as loaded, except for the steps that come before: those before sparsity (`Recipe.until`) for
    `masks`, those before quantization (`Recipe.before`) for a call. It is the same afterwards.

    origin: everything else that determines the measurements (weights, dtypes, device, versions), as JSON. memo:
    statistics by content. blocks: finished blocks by content.
    """

    def __init__(self, loaded: Loaded, origin: JsonObject, memo: Memo, blocks: Blocks) -> None:
        self.loaded, self.origin, self.memo, self.blocks = loaded, origin, memo, blocks
        self._latest: dict[str, tuple[str, CalibrationBatches]] = {}  # {kind of step: its samples, with their name}

    def __call__(self, recipe: Recipe, calibration: Calibration) -> dict[str, Prepared]:
        """Calibrate all layers of a recipe that need it, on the calibration's own number of threads.

        So the weights do not depend on the number of threads of the machine. Raises FloatingPointError naming a layer
        whose inputs are not finite, and MemoryError when memory runs out.
        """
        with fixed_threads(calibration.threads):
            return self._parts(recipe, calibration)

    def masks(self, recipe: Recipe, calibration: Calibration) -> dict[str, Prepared]:
        """Measure all layers whose norms decide what stays, and make their masks. Raises as a call does."""
        with fixed_threads(calibration.threads):
            return self._masks(recipe.until(SPARSITY), recipe.only(SPARSITY), calibration)

    def _parts(self, recipe: Recipe, calibration: Calibration) -> dict[str, Prepared]:
        work, found = _Work(self, QUANTIZE, recipe.before, calibration), dict[str, Prepared]()
        with understandable_oom(), Patch(self.loaded) as patch, torch.no_grad():
            for part in recipe.parts.values():
                if part_calibrates(part):
                    found |= PartWork(self, part, work.inputs(part), patch).all()
                if work.whole_model:
                    patch.put(part.touched(), found)
                    work.before += [part.hash] if beyond_sparsity(part) else []
                else:
                    patch.restore()
        return found

    def _masks(self, under: Recipe, recipe: Recipe, calibration: Calibration) -> dict[str, Prepared]:
        work, found = _Work(self, SPARSITY, under, calibration), dict[str, Prepared]()
        with understandable_oom(), Undo() as undo, torch.no_grad():
            for part in recipe.parts.values():
                with Undo() as own:
                    if part_norms(part):
                        found |= PartMasks(part, work.inputs(part), self.blocks).all(own)
                if work.whole_model and not part.empty:
                    sparsity.apply(self.loaded.model, part.pairs_of(SPARSITY), undo, found)
                    work.before.append(part.hash)
        return found

    def calibration_batches(self, kind: str, calibration: Calibration, before: list[str]) -> CalibrationBatches:
        """The samples and their features. They are kept for the next cell, unless compressed parts compute them.

        kind: of the step that is measured. before: what is in the model while the features are computed.
        """
        if calibration.upstream == "model":
            return CalibrationBatches(self.loaded, calibration)
        name = digest([calibration.measured(True), before])
        known = next((made for made in self._latest.values() if made[0] == name), None)
        if known is None:
            self._latest.pop(kind, None)  # free the last one first
            known = name, CalibrationBatches(self.loaded, calibration)
        self._latest[kind] = known
        return known[1]


class _Work:
    """One pass over the parts of a recipe. kind: of the step that is measured. under: the steps in the model.

    before: the names of all that is in the model. whole_model: whether parts that are compressed stay in it.
    """

    def __init__(self, owner: Calibrator, kind: str, under: Recipe, calibration: Calibration) -> None:
        self.owner, self.calibration, self.under = owner, calibration, under
        self.before = [] if under.empty else [under.hash]
        self.in_use, self.whole_model = calibration.upstream != "full", calibration.upstream == "model"
        self._batches = cache(partial(owner.calibration_batches, kind, calibration, [*self.before]))

    def inputs(self, part: PartRecipe) -> PartInputs:
        there = reaching(self.under, part.part)
        before = self.before if self.whole_model else [] if there.empty else [there.hash]
        measured_on = [self.owner.origin, self.calibration.measured(part.part.reads_text), before]
        return PartInputs(self.owner.loaded, part, self.owner.memo, self._batches, digest(measured_on), self.in_use)


@contextmanager
def understandable_oom() -> Iterator[None]:
    """Out of memory becomes a MemoryError that names the setting to change. The ledger calls it `oom`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(f"calibration ran out of memory ({error}); right: a smaller calibration.n_samples") from error
