"""The FLOPs of a cell as columns of its row."""

from __future__ import annotations

from collections.abc import Mapping

from blip2sweep.backends.torch.asked import AskedAll
from blip2sweep.models.architecture import work
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.flops import stage_flops
from blip2sweep.wire.lines import Cost

GIGA = 1e9
FLOPS, TOKENS = "gflops", "tokens_written"  # both are means over what was asked


def flop_columns(
    asked: AskedAll | None, recipe: Recipe, model: Mapping[str, object], config: Mapping[str, object]
) -> Cost:
    """GFLOPs for one picture, or one question about one, in all and by stage; tokens of an answer with its end.

    model: the composed section. config: the model's own, complete. Empty where the model does not say what it computes.
    """
    if asked is None or not asked.per:
        return {}
    sums: dict[str, float] = {}
    for one, times in asked.asked.items():
        computed = work(model, config, one)
        if computed is None:
            return {}
        for stage, flops in stage_flops(recipe, computed).items():
            sums[stage] = sums.get(stage, 0.0) + times * flops
    means = {FLOPS: sum(sums.values()), **{f"{FLOPS}_{stage}": n for stage, n in sums.items()}}
    found: Cost = {name: float(f"{n / asked.per / GIGA:.7g}") for name, n in means.items()}
    written = {} if asked.written is None else {TOKENS: float(f"{asked.written / asked.per:.5g}")}
    return {**found, **written}
