"""A model that is handed out computes what its cell computes, with AWQ's scales where published: in what stands before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blip2sweep.apply import coded as coding
from blip2sweep.apply.coded import coded
from blip2sweep.apply.patch import Patch
from blip2sweep.compression.quantize.codes import Codes, dequantize
from blip2sweep.compression.undo import Undo
from blip2sweep.models.load import Loaded, load
from blip2sweep.recipe import Recipe, resolve_recipe
from tests.apply.calibration.test_calibration import made, samples
from tests.apply.calibration.test_folds import block_outputs
from tests.checkpoints import TINY, recipe, tiny_config

pytestmark = pytest.mark.thorough
BLOCK = "language_model.model.decoder.layers.0."


@pytest.fixture(scope="module")
def opt() -> Loaded:
    return load(tiny_config(), TINY)


@pytest.fixture
def patch(opt: Loaded) -> Iterator[Patch]:
    before = {n: (p.data_ptr(), p.clone()) for n, p in opt.model.named_parameters()}
    with Patch(opt) as made:
        yield made
    for name, p in opt.model.named_parameters():
        assert p.data_ptr() == before[name][0]
        assert torch.equal(p, before[name][1])
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in opt.model.modules())


def both(patch: Patch, quant: Recipe) -> tuple[Tensor, Tensor, dict[str, Codes], dict[str, Tensor]]:
    """What block 0 of the language model puts out in the cell, and handed out; the codes, the folds."""
    prepared = made(patch.loaded, quant, samples(n=8))
    patch.apply(quant, prepared)
    cell = block_outputs(patch.loaded)
    codes, folds = coded(patch, quant, prepared)
    for path, c in codes.items():
        assert torch.equal(patch.loaded.model.get_submodule(path).weight, dequantize(c)), path
    return cell, block_outputs(patch.loaded), codes, folds


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / a.norm())


@pytest.mark.parametrize(("symmetric", "grouped"), [(True, {}), (False, {"strategy": "group", "group_size": 48})])
def test_the_folded_model_is_the_cells_within_rounding(patch: Patch, symmetric: bool, grouped: dict[str, Any]) -> None:
    """All parts; a fused layer absorbs a scale with a third of its rows, a quantized one with the scales of its codes."""
    quant = recipe(patch.loaded.anatomy, "all", method="awq", bits=4, symmetric=symmetric, **grouped)
    cell, exported, codes, folds = both(patch, quant)
    assert apart(cell, exported) < 2e-5
    assert codes.keys() == quant.schemes.keys()
    assert all(c.prescale is None for c in codes.values())
    assert {type(patch.loaded.model.get_submodule(path)) for path in folds} == {nn.Linear, nn.LayerNorm}
    assert any("qkv" in path for path in folds)
    assert all((s != 1).any() for s in folds.values())


def test_layers_that_read_the_same_and_are_left_alone_have_larger_columns(patch: Patch) -> None:
    quant = recipe(patch.loaded.anatomy, "llm", "0", "q_proj+fc2", method="awq", bits=4)
    cell, exported, codes, folds = both(patch, quant)
    assert apart(cell, exported) < 2e-5
    assert {p.removeprefix(BLOCK) for p in codes} == {"self_attn.q_proj", "fc2"}
    assert {p.removeprefix(BLOCK) for p in folds} == {"self_attn_layer_norm", "fc1"}


def test_a_layer_of_another_method_that_absorbs_a_scale_keeps_its_codes(patch: Patch) -> None:
    config = {
        "part": "llm", "blocks": "0", "layers": "all", "quant": {"method": "awq", "bits": 4},
        "rules": {"a": {"target": "llm:0:fc1", "method": "rtn", "bits": 3}, "b": {"target": "llm:0:v_proj", "method": "mse", "bits": 3}},
    }  # fmt: skip
    quant = resolve_recipe(config, patch.loaded.anatomy)
    cell, exported, codes, folds = both(patch, quant)
    assert apart(cell, exported) < 2e-5
    assert BLOCK + "fc1" in folds
    patch.restore()
    with Patch(patch.loaded) as other:
        plain, _ = coded(other, recipe(patch.loaded.anatomy, "llm", "0", "fc1", method="rtn", bits=3), {})
    ours, theirs = codes[BLOCK + "fc1"], plain[BLOCK + "fc1"]
    assert torch.equal(ours.values, theirs.values)
    assert torch.equal(ours.scale, theirs.scale / folds[BLOCK + "fc1"][:, None])


@pytest.mark.parametrize("inputs", [{"bits": 8}, {"bits": 8, "strategy": "tensor", "dynamic": False}])
def test_quantized_inputs_are_those_of_the_folded_model(patch: Patch, inputs: dict[str, Any]) -> None:
    quant = recipe(patch.loaded.anatomy, "llm", "0", method="awq", bits=4, input={**inputs, "symmetric": False})
    cell, exported, codes, _ = both(patch, quant)
    assert len(codes) == 6
    assert apart(cell, exported) < 2e-3  # a few inputs lie at the middle between two codes


def test_a_prescale_without_a_fold_stays_with_the_codes(patch: Patch) -> None:
    cell, exported, codes, folds = both(patch, recipe(patch.loaded.anatomy, "llm", "0", method="awq_prescale", bits=4))
    assert torch.equal(cell, exported)
    assert any(c.prescale is not None for c in codes.values())
    assert not folds


def test_what_is_trained_later_is_no_longer_of_the_codes(patch: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    quant = recipe(patch.loaded.anatomy, "llm", "0", method="rtn", bits=4)
    path, apply = BLOCK + "fc1", Patch.apply

    def trains(self: Patch, *args: Any) -> Any:
        applied = apply(self, *args)
        weight = self.loaded.model.get_submodule(path).weight
        self.over.data(weight, weight + 1)  # type: ignore[arg-type, operator]
        return applied

    monkeypatch.setattr(Patch, "apply", trains)
    codes, _ = coded(patch, quant, {})
    assert codes.keys() == quant.schemes.keys() - {path}


class OnePlus(nn.Module):
    """A norm as Gemma's."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x / x.square().mean(-1, keepdim=True).sqrt() * (1 + self.weight)


class Squared(OnePlus):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.square()


def test_a_norm_that_multiplies_by_one_more_is_divided_too() -> None:
    norm, x, s = OnePlus(torch.randn(8)), torch.randn(3, 8), torch.rand(8) + 0.5
    fold, before = coding.Folded(s, "norm", slice(None), [], []), norm(x)
    with Undo() as undo:
        coding._divide_norm(norm, fold, undo)
        assert torch.allclose(norm(x) * s, before, atol=1e-5)
    assert torch.equal(norm(x), before)
    with Undo() as undo, pytest.raises(RuntimeError, match="norm"):
        coding._divide_norm(Squared(torch.rand(8)), fold, undo)
