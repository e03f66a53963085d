"""The masks of one part's layers: its blocks in order, measured and made sparse one at a time, as Wanda is published."""

from __future__ import annotations

import time
from collections.abc import Mapping

from torch import Tensor

from blip2sweep.apply.calibration.finished import Blocks
from blip2sweep.apply.calibration.measure import Measured
from blip2sweep.apply.calibration.part_inputs import PartInputs, linear
from blip2sweep.canonical import digest
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.statistics import LayerInfo
from blip2sweep.compression.sparsity import step
from blip2sweep.compression.sparsity.mask import kept_weights, to_bits
from blip2sweep.compression.sparsity.spec import Sparse
from blip2sweep.compression.step import SPARSITY
from blip2sweep.compression.undo import Undo
from blip2sweep.models.part import Linear
from blip2sweep.recipe import PartRecipe


class PartMasks:
    """The masks of one part of one recipe.

    recipe: its sparsity alone. inputs: those of its layers. blocks: finished blocks by content.
    """

    def __init__(self, recipe: PartRecipe, inputs: PartInputs, blocks: Blocks) -> None:
        self.recipe, self.inputs, self.blocks = recipe, inputs, blocks
        self.layers = step.layers_of(recipe.pairs_of(SPARSITY))

    def all(self, undo: Undo) -> dict[str, Prepared]:
        """{path: mask} of the layers that are measured. Where blocks are measured behind sparse ones, the sparse weights
        are put into the model through `undo`."""
        found: dict[str, Prepared] = {}
        for block in range(max(x.block for x, s in self.layers if s.needs) + 1):
            inside = {x: s for x, s in self.layers if x.block == block}
            found |= self._block(block, {x: s for x, s in inside.items() if s.needs})
            if self.inputs.in_use:
                step.apply(self.inputs.loaded.model, list(inside.items()), undo, found)
        return found

    def _block(self, block: int, layers: Mapping[Linear, Sparse]) -> dict[str, Prepared]:
        if not layers:
            return {}
        own = step.identity(self.recipe.part, list(layers.items()))
        key = digest([self.inputs.seen_by(block), own])
        made = self.blocks.get(key)
        if made is None:
            made = self._made(block, layers, key)
            self.blocks.put(key, made)
        return made

    def _made(self, block: int, layers: Mapping[Linear, Sparse], key: str) -> dict[str, Prepared]:
        start = time.perf_counter()
        measured = self.inputs.measured(block, layers, hessians=False)
        kept = {x: self._kept(x, s, measured[x.path]) for x, s in layers.items()}
        seconds = (time.perf_counter() - start) / len(layers)
        return {
            x.path: Prepared(f"{key} {x.path}", None, info=_info(measured[x.path], seconds), kept=bits)
            for x, bits in kept.items()
        }

    def _kept(self, x: Linear, sparse: Sparse, measured: Measured) -> Tensor:
        weight = linear(self.inputs.loaded, x.path).weight
        return to_bits(kept_weights(weight, sparse, measured.sums.norms.to(weight.device)))


def _info(measured: Measured, seconds: float) -> LayerInfo:
    return {"tokens": measured.sums.tokens, "inputs": measured.sums.in_features, "seconds": seconds}
