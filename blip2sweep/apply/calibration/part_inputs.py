"""The inputs of one part's layers, measured block by block and kept by content."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property

from torch import nn

from blip2sweep.apply.calibration.batches import Batch, CalibrationBatches
from blip2sweep.apply.calibration.blocks_run import BlockRunner
from blip2sweep.apply.calibration.measure import Measured, keep, measure, recall
from blip2sweep.cache.tensors import Memo
from blip2sweep.canonical import digest
from blip2sweep.models.load import Loaded
from blip2sweep.models.part import Linear
from blip2sweep.recipe import PartRecipe
from blip2sweep.recipe.chain import block_entries


class PartInputs:
    """What the layers of one part are shown.

    recipe: what is put into the part's blocks on the way. memo: statistics by content. calibration_batches: called when
    something has to be measured. samples: the name of what the part is measured on. in_use: whether a block is measured
    behind the blocks that were changed before it.
    """

    def __init__(
        self,
        loaded: Loaded,
        recipe: PartRecipe,
        memo: Memo,
        calibration_batches: Callable[[], CalibrationBatches],
        samples: str,
        in_use: bool,
    ) -> None:
        self.loaded, self.part, self.memo, self.in_use = loaded, recipe.part, memo, in_use
        self._calibration_batches, self._samples = calibration_batches, samples
        self._entries = block_entries(recipe)

    @cached_property
    def batches(self) -> list[Batch]:
        return self._calibration_batches().batches(self.part.stage)

    @cached_property
    def runner(self) -> BlockRunner:
        return BlockRunner(self.loaded.model, self.part, [b.run for b in self.batches])

    def seen_by(self, block: int) -> str:
        """The name of the block's input. With upstream=full it does not depend on the recipe."""
        before = self._entries[:block] if self.in_use else ()
        return digest([self._samples, self.part.name, block, list(before) if any(before) else []])

    def measured(self, block: int, layers: Iterable[Linear], hessians: bool) -> dict[str, Measured]:
        """{path: sums over the inputs} of layers of a block. The runner advances only where they are not known.

        hessians: whether second moments are summed too. Raises FloatingPointError naming a layer whose inputs are not
        finite.
        """
        there, name = list(layers), self.seen_by(block)
        found = recall(self.memo, name, there, hessians)
        if found is None:
            found = measure(self.runner, block, there, self.batches, self.loaded.language, hessians)
            keep(self.memo, name, found)
        return found


def linear(loaded: Loaded, path: str) -> nn.Linear:
    module = loaded.model.get_submodule(path)
    assert isinstance(module, nn.Linear)
    return module
