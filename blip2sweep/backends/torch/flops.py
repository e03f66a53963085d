"""The FLOPs of a cell as columns of its row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from blip2sweep.backends.torch.asked import AskedAll
from blip2sweep.models.architecture import work
from blip2sweep.models.work import Asked, Work
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.flops import stage_flops
from blip2sweep.wire.lines import Cost

GIGA = 1e9
FLOPS, TOKENS = "gflops", "tokens_written"  # both are means over what was asked


Computed = Callable[
    [Asked], "tuple[Work, ...] | None"
]  # what a model computes of one sample; None where it does not say


def of_model(model: Mapping[str, object], config: Mapping[str, object]) -> Computed:
    """model: the composed section. config: the model's own, complete. Samples that are read alike are counted once."""
    return cache(lambda asked: work(model, config, asked))


def flop_columns(asked: AskedAll | None, recipe: Recipe, computed: Computed) -> Cost:
    """GFLOPs for one picture, or one question about one, in all and by stage; tokens of an answer with its end.

    Empty where the model does not say what it computes.
    """
    if asked is None or not asked.per:
        return {}
    sums: dict[str, float] = {}
    for one, times in asked.asked.items():
        works = computed(one)
        if works is None:
            return {}
        for stage, flops in stage_flops(recipe, works).items():
            sums[stage] = sums.get(stage, 0.0) + times * flops
    means = {FLOPS: sum(sums.values()), **{f"{FLOPS}_{stage}": n for stage, n in sums.items()}}
    found: Cost = {name: float(f"{n / asked.per / GIGA:.7g}") for name, n in means.items()}
    written = {} if asked.written is None else {TOKENS: float(f"{asked.written / asked.per:.5g}")}
    return {**found, **written}
