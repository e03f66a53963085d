"""The calibration of one part of a recipe: its blocks in order, measured and quantized one at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn

from blip2sweep.apply.calibration.batches import Batch, CalibrationBatches, token_weights
from blip2sweep.apply.calibration.blocks_run import BlockRunner
from blip2sweep.apply.calibration.folds import Member, OutputError, alone, together
from blip2sweep.apply.calibration.measure import Measured, calls, keep, measure, recall
from blip2sweep.apply.patch import Patch
from blip2sweep.canonical import digest
from blip2sweep.compression.quantize import METHODS, arithmetic
from blip2sweep.compression.quantize.folds import folds, folds_of, traits
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.scheme import Scheme, Weights
from blip2sweep.compression.quantize.statistics import LayerInfo, Result
from blip2sweep.models.load import Loaded
from blip2sweep.models.part import Linear
from blip2sweep.recipe import PartRecipe
from blip2sweep.recipe.calibrated import calibrates
from blip2sweep.recipe.chain import block_entries

if TYPE_CHECKING:
    from blip2sweep.apply.calibration.engine import Calibrator


class PartWork:
    """One part of one recipe.

    samples: the name of what the part is measured on. in_use: whether a block is measured behind the part's own
    quantized blocks.
    """

    def __init__(
        self,
        owner: Calibrator,
        recipe: PartRecipe,
        calibration_batches: CalibrationBatches,
        patch: Patch,
        samples: str,
        in_use: bool,
    ) -> None:
        self.owner, self.loaded, self.recipe, self.patch = owner, owner.loaded, recipe, patch
        self.calibration_batches, self.samples, self.part, self.in_use = (
            calibration_batches,
            samples,
            recipe.part,
            in_use,
        )
        self.entries = block_entries(recipe)

    def all(self) -> dict[str, Prepared]:
        """Calibrate the blocks in order. The runner advances only when something has to be measured."""
        found: dict[str, Prepared] = {}
        last = max(x.block for x, s in self.recipe.touched() if calibrates(s))
        for block in range(last + 1):
            layers = {x: s for x, s in self.recipe.touched() if x.block == block}
            found |= self._block(block, layers)
            if self.in_use:
                self.patch.put(layers.items(), found)
        return found

    @cached_property
    def batches(self) -> list[Batch]:
        return self.calibration_batches.batches(self.part.stage)

    @cached_property
    def runner(self) -> BlockRunner:
        return BlockRunner(self.loaded.model, self.part, [b.run for b in self.batches])

    def _block(self, block: int, touched: Mapping[Linear, Scheme]) -> dict[str, Prepared]:
        """What calibration makes of a block.

        touched: all of its layers in the recipe, since folds depend on the others too.
        """
        layers = {x: s for x, s in touched.items() if calibrates(s)}
        if not layers:
            return {}
        folded = any(folds(s) for s in layers.values())
        own = digest({x.path: s.as_dict() for x, s in (touched if folded else layers).items()})
        key = digest([self._seen_by(block), own])
        made = self.owner.blocks.get(key)
        if made is None:
            made = self._made(block, layers, touched, key)
            self.owner.blocks.put(key, made)
        return made

    def _seen_by(self, block: int) -> str:
        """The name of the block's input. With upstream=full it does not depend on the recipe."""
        before = self.entries[:block] if self.in_use else ()
        return digest([self.samples, self.part.name, block, list(before) if any(before) else []])

    def _made(
        self, block: int, layers: Mapping[Linear, Scheme], touched: Mapping[Linear, Scheme], key: str
    ) -> dict[str, Prepared]:
        start = time.perf_counter()
        measured = self._measured(block, layers)
        results = self._folded(block, layers, touched, measured)
        for x, scheme in layers.items():
            if x.path not in results:
                results[x.path] = _result(x, linear(self.loaded, x.path), scheme.weights, measured[x.path])
        seconds = (time.perf_counter() - start) / len(layers)
        return {
            x.path: self._prepared(x.path, s, results[x.path], measured[x.path], f"{key} {x.path}", seconds)
            for x, s in layers.items()
        }

    def _measured(self, block: int, layers: Mapping[Linear, Scheme]) -> dict[str, Measured]:
        hessians = any("hessian" in s.needs for s in layers.values())
        name = self._seen_by(block)
        found = recall(self.owner.memo, name, layers, hessians)
        if found is None:
            found = measure(self.runner, block, list(layers), self.batches, self.loaded.language, hessians)
            keep(self.owner.memo, name, found)
        return found

    def _folded(
        self,
        block: int,
        layers: Mapping[Linear, Scheme],
        touched: Mapping[Linear, Scheme],
        measured: Mapping[str, Measured],
    ) -> dict[str, Result]:
        """The layers whose scale one module can absorb are done together, the others alone."""
        own = {
            x.path: Member(x, s, linear(self.loaded, x.path), measured[x.path].sums)
            for x, s in layers.items()
            if folds(s)
        }
        results: dict[str, Result] = {}
        for fold, paths in folds_of(self.part, block, {x.path: s for x, s in touched.items()}, own.keys()):
            output_error = self._output_error(block, fold.output_of, own[paths[0]].layer) if fold.output_of else None
            results |= together(fold, [own[p] for p in paths], output_error)
        return results | {p: alone(m) for p, m in own.items() if p not in results}

    def _output_error(self, block: int, name: str, reader: Linear) -> OutputError:
        """The error of the output of module `name`, which contains `reader`.

        Its tokens weigh what they weigh in the statistics.
        """
        module = self.runner.blocks[block].get_submodule(name)
        weights = [token_weights(self.loaded.language, reader, b) for b in self.batches]
        return OutputError(module, calls(self.runner, block, module), weights)

    def _prepared(
        self, path: str, scheme: Scheme, result: Result, measured: Measured, key: str, seconds: float
    ) -> Prepared:
        inputs, sums = scheme.input_activations, measured.sums
        weight = low = high = None
        if METHODS[scheme.weights.method].calibrates:
            weight = result.weight.to(linear(self.loaded, path).weight.dtype)
            if not torch.isfinite(weight).all():
                raise FloatingPointError(f"{path}.weight: {scheme.weights.method} gave values that are not finite")
        if inputs is not None and not inputs.dynamic:
            s = 1.0 if result.prescale is None else result.prescale
            low, high = (sums.low / s).amin(), (sums.high / s).amax()
        info: LayerInfo = {
            "tokens": sums.tokens,
            "rank": measured.rank,
            "inputs": sums.in_features,
            **result.info,
            "seconds": seconds,
        }
        return Prepared(key, weight, result.prescale, low, high, info)


def _result(layer: Linear, module: nn.Linear, weights: Weights, measured: Measured) -> Result:
    """What the scheme's method makes of a layer. A method without calibration only wanted the range of the input."""
    weight = module.weight.detach().float()
    if not METHODS[weights.method].calibrates:
        return Result(weight)
    method = arithmetic(weights.method)
    own = weights if weights.clips(traits(layer)) or not weights.clip else replace(weights, clip=False)
    result: Result = method.calibrated(weight, own, measured.sums)
    return result


def linear(loaded: Loaded, path: str) -> nn.Linear:
    module = loaded.model.get_submodule(path)
    assert isinstance(module, nn.Linear)
    return module
