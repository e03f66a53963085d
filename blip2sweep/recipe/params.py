"""Parameters of a model under a recipe: in all, by role, and those that are not zero. Tied ones count once.

A dropped block takes all of its parameters with it, an adapter that is not merged adds its own, and a weight that a mask
sets to zero is a parameter all the same. Zeros that quantization happens to make are not counted as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from blip2sweep.recipe.recipe import PartRecipe, Recipe
from blip2sweep.recipe.size import stored


class Change(NamedTuple):
    """What a recipe adds to the parameters of a part; less than 0 where it takes some away. nonzero: of those that are not
    zero."""

    params: int
    nonzero: int


def param_columns(
    recipe: Recipe, model_params: int, roles: Mapping[str, int], blocks: Mapping[str, Mapping[int, int]]
) -> dict[str, int]:
    """Columns `params`, `params_<role>` and `params_nonzero`.

    model_params, roles: of the model without a recipe. blocks: {part: {number of a block: its parameters}}.
    """
    changes = {name: _change(part, blocks.get(name, {})) for name, part in recipe.parts.items()}
    by_role = dict(roles)
    for name, part in recipe.parts.items():
        by_role[part.part.role] = by_role.get(part.part.role, 0) + changes[name].params
    return {
        "params": model_params + sum(c.params for c in changes.values()),
        **{f"params_{role}": n for role, n in by_role.items()},
        "params_nonzero": model_params + sum(c.nonzero for c in changes.values()),
    }


def _change(part: PartRecipe, blocks: Mapping[int, int]) -> Change:
    lost, own = sum(blocks.get(block, 0) for block in part.dropped), _layer_change(part)
    return Change(own.params - lost, own.nonzero - lost)


@lru_cache(maxsize=65536)
def _layer_change(part: PartRecipe) -> Change:
    """Of the layers that stay. Each parameter of a linear layer is one multiplication and one addition a token, so FLOPs
    tell how many there are, zeros included. Memoised, since the cells of a grid share their parts."""
    left = [(x.weights, s.values, s.flops // 2) for x, s in stored(part).values() if s.flops]
    return Change(
        sum(params - weights for weights, _, params in left),
        sum(values - weights + max(0, params - weights) for weights, values, params in left),
    )
