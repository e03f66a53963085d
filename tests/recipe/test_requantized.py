"""Merged adapters that are quantized again, in the model and back."""

from __future__ import annotations

import pytest
import torch

from blip2sweep.apply.patch import Patch
from blip2sweep.compression.quantize.step import layers_of
from blip2sweep.compression.recover.adapters import Adapter
from blip2sweep.compression.step import RECOVER
from blip2sweep.models.load import load
from blip2sweep.recipe.compact import expand, targets
from tests.checkpoints import TINY, tiny_config
from tests.composing import plan

WORDS = ("task.limit=8", "part=llm", "blocks=0-1", "quant.bits=3", "recover=lora", "recover.target=llm:1-2:mlp")


@pytest.mark.thorough
@pytest.mark.parametrize("requantize", ["true", "null"])
def test_what_is_merged_into_codes_is_on_their_grid_only_when_it_is_quantized_again(requantize: str) -> None:
    """Blocks 0-1 are quantized and 1-2 trained, so that of block 1 is quantized twice, and that of block 2 never."""
    made = plan(*WORDS, "recover.merge=true" if requantize == "null" else "recover.requantize=true")
    cell = made.cells[str(made.keys[0])]
    loaded = load(tiny_config(), TINY)
    recipe = expand(targets(cell.recipe), loaded.anatomy)
    torch.manual_seed(0)
    layers = [x for x, _ in recipe.step(recipe.kinds.index(RECOVER))]
    adapters = {x.path: Adapter(torch.randn(8, x.in_features), 0.01 * torch.randn(x.out_features, 8)) for x in layers}
    weights = {x.path: loaded.model.get_submodule(x.path).weight for x in layers}
    before = {path: w.detach().clone() for path, w in weights.items()}
    with Patch(loaded) as patch:
        patch.apply(recipe, made={RECOVER: adapters})
        after = {path: w.detach().clone() for path, w in weights.items()}
    assert all(torch.equal(before[path], w) for path, w in weights.items())
    twice = {x.path: scheme for x, scheme in layers_of(recipe.step(0))}
    for x in layers:
        base = _alone(before[x.path], twice[x.path]) if x.path in twice else before[x.path]
        merged = adapters[x.path].added(base, 2.0)
        on_grid = x.path in twice and requantize == "true"
        torch.testing.assert_close(after[x.path], _alone(merged, twice[x.path]) if on_grid else merged)
        values = max(len(row.unique()) for row in after[x.path])
        assert (values <= 8) == on_grid  # 3 bits a row


def _alone(weight: torch.Tensor, scheme: object) -> torch.Tensor:
    """RTN by hand (Gholami et al., 2021, eq. 2): asymmetric, one scale a row, zero on the grid."""
    low, high = weight.amin(1, True).clamp(max=0), weight.amax(1, True).clamp(min=0)
    step = (high - low) / 7
    zero = (-low / step).round()
    return ((weight / step).round().add(zero).clamp(0, 7) - zero) * step
