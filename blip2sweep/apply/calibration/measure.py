"""Sums over the inputs of the layers of one block, collected from all calibration batches in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from blip2sweep.apply.calibration.batches import Batch, token_weights
from blip2sweep.apply.calibration.blocks_run import BlockRunner
from blip2sweep.apply.calibration.folds import Call
from blip2sweep.cache.tensors import Memo
from blip2sweep.compression.quantize.statistics import Statistics
from blip2sweep.errors import UserError
from blip2sweep.models.language import Language
from blip2sweep.models.part import Linear


@dataclass(frozen=True, eq=False)
class Measured:
    """The sums over a layer's inputs, and the rank of their second moment."""

    sums: Statistics
    rank: int


def measure(
    runner: BlockRunner,
    block: int,
    layers: Sequence[Linear],
    batches: Sequence[Batch],
    language: Language,
    hessians: bool,
) -> dict[str, Measured]:
    """{path: sums} of the layers of a block. Layers that read the same tensor share their sums.

    Raises FloatingPointError naming a layer whose inputs are not finite, and UserError naming one that no sample
    reaches.
    """
    runner.advance_to(block)
    inputs = _InputSums(runner, batches, language, hessians)
    with ExitStack() as hooks:
        for x in layers:
            module = runner.model.get_submodule(x.path)
            hook = module.register_forward_pre_hook(lambda m, args, x=x: inputs.add(x, m, args[0]))
            hooks.callback(hook.remove)
        runner.observe(block)
    if missed := [x.path for x in layers if x.path not in inputs.leader]:
        raise UserError(
            f"{missed[0]}: no calibration sample reaches it; right: another calibration, or keep= the layer"
        )
    known = {path: Measured(sums, sums.rank()) for path, sums in inputs.sums.items()}
    return {x.path: known[inputs.leader[x.path]] for x in layers}


class _InputSums:
    """Adds up inputs. The first batch shows which layers read the very same tensor: only one of them is summed."""

    def __init__(self, runner: BlockRunner, batches: Sequence[Batch], language: Language, hessians: bool) -> None:
        self.runner, self.batches, self.language, self.hessians = runner, batches, language, hessians
        self.sums: dict[str, Statistics] = {}
        self.leader: dict[str, str] = {}
        self._first: list[tuple[Tensor, str]] = []

    def add(self, layer: Linear, module: nn.Module, x: Tensor) -> None:
        if layer.path not in self.leader:
            self.leader[layer.path] = next((path for y, path in self._first if y is x), layer.path)
            self._first.append((x, layer.path))
        if self.runner.batch > 0:
            self._first.clear()
        if self.leader[layer.path] != layer.path:
            return
        if layer.path not in self.sums:
            self.sums[layer.path] = Statistics(layer.in_features, x.device, self.hessians)
        weights = token_weights(self.language, layer, self.batches[self.runner.batch])
        try:
            self.sums[layer.path].add(x, weights)
        except FloatingPointError as error:
            raise FloatingPointError(f"{layer.path}: its {error} on the calibration samples") from error


def calls(runner: BlockRunner, block: int, module: nn.Module) -> list[Call]:
    """The arguments of each call of a module inside the block."""
    runner.advance_to(block)
    found: list[Call] = []
    hook = module.register_forward_pre_hook(lambda m, args, kwargs: found.append((args, kwargs)), with_kwargs=True)
    runner.observe(block)
    hook.remove()
    return found


# ---- kept by content


def recall(memo: Memo, name: str, layers: Iterable[Linear], hessians: bool) -> dict[str, Measured] | None:
    """What was measured before under this name; None unless it is there for every layer.

    Second moments are left out unless `hessians`. So a cell's record does not depend on the cells before it.
    """
    found: dict[str, Measured] = {}
    for x in layers:
        value = memo.get(f"{name} {x.path}")
        if value is None or (hessians and len(value) < 6):
            return None
        found[x.path] = _unpacked(x, value, hessians)
    return found


def keep(memo: Memo, name: str, measured: Mapping[str, Measured]) -> None:
    for path, m in measured.items():
        s = m.sums
        counts = torch.tensor([s.tokens, s.weight, m.rank], dtype=torch.float64)
        memo.put(
            f"{name} {path}",
            (counts, s.sum_abs, s.sum_squares, s.low, s.high, *([] if s.hessian is None else [s.hessian])),
        )


def _unpacked(layer: Linear, value: tuple[Tensor, ...], hessians: bool) -> Measured:
    counts, sum_abs, sum_squares, low, high, *hessian = value
    tokens, weight, rank = counts.tolist()
    sums = replace(Statistics(1), in_features=layer.in_features, device=sum_abs.device)
    sums.tokens, sums.weight, sums.sum_abs, sums.sum_squares = int(tokens), weight, sum_abs, sum_squares
    sums.low, sums.high = low, high
    sums.hessian = hessian[0] if hessians else None
    return Measured(sums, int(rank) if hessians else sums.rank())
