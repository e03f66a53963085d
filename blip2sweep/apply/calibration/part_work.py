"""The calibration of one part of a recipe: its blocks in order, measured and quantized one at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from blip2sweep.apply.calibration.batches import token_weights
from blip2sweep.apply.calibration.folds import Member, OutputError, alone, together
from blip2sweep.apply.calibration.measure import Measured, calls
from blip2sweep.apply.calibration.part_inputs import PartInputs, linear
from blip2sweep.apply.patch import Patch
from blip2sweep.canonical import digest
from blip2sweep.compression.quantize import METHODS, arithmetic
from blip2sweep.compression.quantize.folds import folds, folds_of, traits
from blip2sweep.compression.quantize.layer import scale_dtype
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.scheme import Scheme, Weights
from blip2sweep.compression.quantize.statistics import LayerInfo, Result
from blip2sweep.compression.zeros import kept, with_zeros
from blip2sweep.models.part import Linear
from blip2sweep.recipe import PartRecipe
from blip2sweep.recipe.calibrated import calibrates

if TYPE_CHECKING:
    from blip2sweep.apply.calibration.engine import Calibrator


class PartWork:
    """One part of one recipe. inputs: those of its layers."""

    def __init__(self, owner: Calibrator, recipe: PartRecipe, inputs: PartInputs, patch: Patch) -> None:
        self.owner, self.loaded, self.recipe, self.patch = owner, owner.loaded, recipe, patch
        self.inputs, self.part = inputs, recipe.part

    def all(self) -> dict[str, Prepared]:
        """Calibrate the blocks in order. The runner advances only when something has to be measured."""
        found: dict[str, Prepared] = {}
        last = max(x.block for x, s in self.recipe.touched() if calibrates(s))
        for block in range(last + 1):
            layers = {x: s for x, s in self.recipe.touched() if x.block == block}
            found |= self._block(block, layers)
            if self.inputs.in_use:
                self.patch.put(layers.items(), found)
        return found

    def _block(self, block: int, touched: Mapping[Linear, Scheme]) -> dict[str, Prepared]:
        """What calibration makes of a block.

        touched: all of its layers in the recipe, since folds depend on the others too.
        """
        layers = {x: s for x, s in touched.items() if calibrates(s)}
        if not layers:
            return {}
        folded = any(folds(s) for s in layers.values())
        own = digest({x.path: s.as_dict() for x, s in (touched if folded else layers).items()})
        key = digest([self.inputs.seen_by(block), own])
        made = self.owner.blocks.get(key)
        if made is None:
            made = self._made(block, layers, touched, key)
            self.owner.blocks.put(key, made)
        return made

    def _made(
        self, block: int, layers: Mapping[Linear, Scheme], touched: Mapping[Linear, Scheme], key: str
    ) -> dict[str, Prepared]:
        start = time.perf_counter()
        hessians = any("hessian" in s.needs for s in layers.values())
        measured = self.inputs.measured(block, layers, hessians)
        for x in layers:
            measured[x.path].sums.scale_dtype = scale_dtype(linear(self.loaded, x.path))
        results = self._folded(block, layers, touched, measured)
        for x, scheme in layers.items():
            if x.path not in results:
                results[x.path] = _result(x, linear(self.loaded, x.path), scheme.weights, measured[x.path])
        seconds = (time.perf_counter() - start) / len(layers)
        return {
            x.path: self._prepared(x.path, s, results[x.path], measured[x.path], f"{key} {x.path}", seconds)
            for x, s in layers.items()
        }

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
        runner = self.inputs.runner
        module = runner.blocks[block].get_submodule(name)
        weights = [token_weights(self.loaded.language, reader, b) for b in self.inputs.batches]
        return OutputError(module, calls(runner, block, module), weights)

    def _prepared(
        self, path: str, scheme: Scheme, result: Result, measured: Measured, key: str, seconds: float
    ) -> Prepared:
        inputs, sums = scheme.input_activations, measured.sums
        weight = codes = low = high = None
        if METHODS[scheme.weights.method].calibrates:
            module = linear(self.loaded, path)
            weight = with_zeros(module, result.weight.to(module.weight.dtype))
            if not torch.isfinite(weight).all():
                raise FloatingPointError(f"{path}.weight: {scheme.weights.method} gave values that are not finite")
            codes = None if result.codes is None else result.codes.with_zeros(kept(module))
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
        return Prepared(key, None if codes else weight, result.prescale, low, high, info, codes=codes)


def _result(layer: Linear, module: nn.Linear, weights: Weights, measured: Measured) -> Result:
    """What the scheme's method makes of a layer. A method without calibration only wanted the range of the input."""
    weight = module.weight.detach().float()
    if not METHODS[weights.method].calibrates:
        return Result(weight)
    method = arithmetic(weights.method)
    own = weights if weights.clips(traits(layer)) or not weights.clip else replace(weights, clip=False)
    there = {"kept": kept(module)} if METHODS[weights.method].keeps_zeros else {}
    result: Result = method.calibrated(weight, own, measured.sums, **there)
    return result
