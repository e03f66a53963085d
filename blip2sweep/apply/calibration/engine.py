"""Quantizes a recipe's calibrated layers: block by block, each measured on what the blocks before it put out.

Memory: one state a batch, the statistics of one block. What was measured and made is kept by content, so cells that
share samples and predecessors share one pass, and a block that was quantized once is never quantized again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from blip2sweep.apply.calibration.batches import Batch, Feed, token_weights
from blip2sweep.apply.calibration.blocks_run import Walk
from blip2sweep.apply.calibration.finished import Blocks
from blip2sweep.apply.calibration.folds import Judge, Member, alone, together
from blip2sweep.apply.calibration.measure import Measured, calls, keep, measure, recall
from blip2sweep.apply.patch import Patch
from blip2sweep.cache.tensors import Memo
from blip2sweep.canonical import digest
from blip2sweep.compression.quantize import METHODS, arithmetic
from blip2sweep.compression.quantize.folds import folds, folds_of, traits
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.scheme import Scheme, Weights
from blip2sweep.compression.quantize.statistics import Result
from blip2sweep.compression.quantize.threads import fixed_threads
from blip2sweep.machine.memory import is_out_of_memory
from blip2sweep.models.anatomy import Linear
from blip2sweep.models.load import Loaded
from blip2sweep.recipe import PartRecipe, Recipe
from blip2sweep.recipe.calibrated import calibrates, part_calibrates
from blip2sweep.recipe.chain import block_entries
from blip2sweep.tasks.calibration import Calibration


class Calibrator:
    """Makes `{path: Prepared}` of recipes. When it is called the model must be as loaded but for the steps that the recipe
    has before quantization (`Recipe.before`), and is so afterwards.

    origin: whatever else determines the measurements (weights, dtypes, device, versions), as JSON; memo: statistics by
    content; blocks: finished blocks by content.
    """

    def __init__(self, loaded: Loaded, origin: Any, memo: Memo, blocks: Blocks) -> None:
        self.loaded, self.origin, self.memo, self.blocks = loaded, origin, memo, blocks
        self._kept: tuple[str, Feed] | None = None

    def __call__(self, recipe: Recipe, calibration: Calibration) -> dict[str, Prepared]:
        """All of it on the calibration's own number of threads, so that nobody's weights depend on a machine's.

        Raises FloatingPointError naming a layer whose inputs are not finite, MemoryError when memory runs out."""
        with fixed_threads(calibration.threads):
            return self._parts(recipe, calibration)

    def _parts(self, recipe: Recipe, calibration: Calibration) -> dict[str, Prepared]:
        before = [] if recipe.before.empty else [recipe.before.hash]
        feed, found = self._feed(calibration, before), dict[str, Prepared]()
        in_use, whole_model = calibration.upstream != "full", calibration.upstream == "model"
        with understandable_oom(), Patch(self.loaded) as placed, torch.no_grad():
            for part in recipe.parts.values():
                if part_calibrates(part):
                    seen = [self.origin, calibration.measured(part.part.reads_text), before]
                    found |= _PartWork(self, part, feed, placed, digest(seen), in_use).all()
                if whole_model:
                    placed.put(part.touched(), found)
                    before += [] if part.empty else [part.hash]
                else:
                    placed.restore()
        return found

    def _feed(self, calibration: Calibration, before: list[str]) -> Feed:
        """The samples and their features, kept for the next cell unless quantized parts make them."""
        if calibration.upstream == "model":
            return Feed(self.loaded, calibration)
        name = digest([calibration.measured(True), before])
        if self._kept is None or self._kept[0] != name:
            self._kept = None  # free the last one first
            self._kept = name, Feed(self.loaded, calibration)
        return self._kept[1]


class _PartWork:
    """One part of one recipe. samples: the name of what the part is measured on; in_use: behind its own quantized blocks."""

    def __init__(
        self, owner: Calibrator, recipe: PartRecipe, feed: Feed, placed: Patch, samples: str, in_use: bool
    ) -> None:
        self.owner, self.loaded, self.recipe, self.placed = owner, owner.loaded, recipe, placed
        self.feed, self.samples, self.part, self.in_use = feed, samples, recipe.part, in_use
        self.entries = block_entries(recipe)

    def all(self) -> dict[str, Prepared]:
        """Blocks in order; the walk follows when something has to be measured, through the blocks as they are then."""
        found: dict[str, Prepared] = {}
        last = max(x.block for x, s in self.recipe.touched() if calibrates(s))
        for block in range(last + 1):
            layers = {x: s for x, s in self.recipe.touched() if x.block == block}
            found |= self._block(block, layers)
            if self.in_use:
                self.placed.put(layers.items(), found)
        return found

    @cached_property
    def batches(self) -> list[Batch]:
        return self.feed.batches(self.part.stage)

    @cached_property
    def walk(self) -> Walk:
        return Walk(self.loaded.model, self.part, [b.run for b in self.batches])

    def _block(self, block: int, touched: Mapping[Linear, Scheme]) -> dict[str, Prepared]:
        """What calibration makes of a block. touched: all of its layers in the recipe; folds depend on the others too."""
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
        """The name of what reaches a block: with upstream=full that does not depend on the recipe."""
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
            found = measure(self.walk, block, list(layers), self.batches, self.loaded.language, hessians)
            keep(self.owner.memo, name, found)
        return found

    def _folded(
        self,
        block: int,
        layers: Mapping[Linear, Scheme],
        touched: Mapping[Linear, Scheme],
        measured: Mapping[str, Measured],
    ) -> dict[str, Result]:
        """Layers that one operation can absorb a scale for go together, the others alone."""
        own = {
            x.path: Member(x, s, linear(self.loaded, x.path), measured[x.path].sums)
            for x, s in layers.items()
            if folds(s)
        }
        results: dict[str, Result] = {}
        for fold, paths in folds_of(self.part, block, {x.path: s for x, s in touched.items()}, own.keys()):
            judge = self._judge(block, fold.output_of, own[paths[0]].layer) if fold.output_of else None
            results |= together(fold, [own[p] for p in paths], judge)
        return results | {p: alone(m) for p, m in own.items() if p not in results}

    def _judge(self, block: int, name: str, reader: Linear) -> Judge:
        """Of the module `name`, which `reader` is in: its tokens weigh what they weigh in the statistics."""
        module = self.walk.blocks[block].get_submodule(name)
        weights = [token_weights(self.loaded.language, reader, b) for b in self.batches]
        return Judge(module, calls(self.walk, block, module), weights)

    def _prepared(
        self, path: str, scheme: Scheme, result: Result, seen: Measured, key: str, seconds: float
    ) -> Prepared:
        inputs, sums = scheme.input_activations, seen.sums
        weight = low = high = None
        if METHODS[scheme.weights.method].calibrates:
            weight = result.weight.to(linear(self.loaded, path).weight.dtype)
            if not torch.isfinite(weight).all():
                raise FloatingPointError(f"{path}.weight: {scheme.weights.method} gave values that are not finite")
        if inputs is not None and not inputs.dynamic:
            s = 1.0 if result.prescale is None else result.prescale
            low, high = (sums.low / s).amin(), (sums.high / s).amax()
        info = {"tokens": sums.tokens, "rank": seen.rank, "inputs": sums.in_features, **result.info, "seconds": seconds}
        return Prepared(key, weight, result.prescale, low, high, info)


def _result(layer: Linear, module: nn.Linear, weights: Weights, seen: Measured) -> Result:
    """What the scheme's method makes of a layer; of one that sees weights alone only the input's range was wanted."""
    weight = module.weight.detach().float()
    if not METHODS[weights.method].calibrates:
        return Result(weight)
    method = arithmetic(weights.method)
    own = weights if weights.clips(traits(layer)) or not weights.clip else replace(weights, clip=False)
    result: Result = method.calibrated(weight, own, seen.sums)
    return result


def linear(loaded: Loaded, path: str) -> nn.Linear:
    module = loaded.model.get_submodule(path)
    assert isinstance(module, nn.Linear)
    return module


@contextmanager
def understandable_oom() -> Iterator[None]:
    """Says which knob to turn; a MemoryError is what the ledger calls `oom`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(f"calibration ran out of memory ({error}); right: a smaller calibration.n_samples") from error
