"""FLOPs of a model under a recipe: for one picture, or one question about one, whatever else is shared.

What each layer costs a token is said by the specs of a recipe's steps (`Stored.flops`), what passes through it by the
architecture (models/work.py). A dropped block costs nothing; quantization and sparse weights change nothing here, since
their multiplications stay; a layer that runs beside another (an adapter that is not merged) adds its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from blip2sweep.compression.step import plain
from blip2sweep.models.part import Linear, Part, Stack
from blip2sweep.models.work import Blocks, Work
from blip2sweep.recipe.recipe import PartRecipe, Recipe
from blip2sweep.recipe.size import stored


class StackCost(NamedTuple):
    """A stack. layers: {name inside a block: FLOPs a token of all blocks that have it}. own, cross: {block of the stack:
    width of the attention's heads together}, of the blocks that stay."""

    stage: str
    layers: Mapping[str, int]
    own: Mapping[int, int]
    cross: Mapping[int, int]

    def flops(self, blocks: Blocks) -> int:
        """Of one pass. Attention multiplies queries with keys, and what comes of it with values: 4 FLOPs a pair and
        channel."""
        layers = sum(n * blocks.others.get(name, blocks.tokens) for name, n in self.layers.items())
        own = sum(width * blocks.windowed.get(i, blocks.pairs) for i, width in self.own.items())
        return layers + 4 * (own + blocks.crossed * sum(self.cross.values()))


def stage_flops(recipe: Recipe, work: Iterable[Work]) -> dict[str, int]:
    """{stage: FLOPs} of what a model computes, in the order of computation."""
    costs = {path: cost for part in recipe.parts.values() for path, cost in stack_costs(part).items()}
    found: dict[str, int] = {}
    for one in work:
        stage, flops = _one(one, costs)
        found[stage] = found.get(stage, 0) + flops
    return found


def _one(work: Work, costs: Mapping[str, StackCost]) -> tuple[str, int]:
    if not isinstance(work, Blocks):
        return work.stage, work.flops
    cost = costs[work.stack]
    return cost.stage, cost.flops(work)


@lru_cache(maxsize=65536)
def stack_costs(part: PartRecipe) -> dict[str, StackCost]:
    """{module path: cost} of the stacks of a part. Memoised, since the cells of a grid share their parts."""
    own, touched = part.part, stored(part)
    each = {x.path: touched[x.path][1].flops if x.path in touched else plain(x).flops for x in own.linears}
    return {stack.path: _stack_cost(own, stack, each) for stack in own.stacks}


def _stack_cost(part: Part, stack: Stack, each: Mapping[str, int]) -> StackCost:
    """each: {path: FLOPs a token} of the part's layers."""
    mine = [x for x in part.linears if x.stack == stack.name]
    left = {x.block for x in mine if each[x.path]}
    layers: dict[str, int] = {}
    for x in mine:
        layers[x.name] = layers.get(x.name, 0) + each[x.path]
    for x in part.unread:  # those of blocks that run: their outputs are thrown away
        if x.stack == stack.name and x.block in left:
            layers[x.name] = layers.get(x.name, 0) + plain(x).flops
    there = [x for x in mine if x.block in left]
    return StackCost(part.stage, layers, *(_widths(there, kind, stack) for kind in ("attention", "crossattention")))


def _widths(layers: Iterable[Linear], kind: str, stack: Stack) -> dict[int, int]:
    """{block of the stack: what the last layer of its attention reads}, which is all heads side by side."""
    return {x.block - stack.first: x.in_features for x in layers if x.kind == kind}
