"""The last block computes what is read behind it: as a plain pass."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from blip2sweep.models import last_block
from blip2sweep.models.last_block import KINDS, keys_and_values_alone
from blip2sweep.models.load import load
from blip2sweep.models.ragged import Rows
from blip2sweep.tasks import Generation
from tests.checkpoints import TINY, tiny_config
from tests.models.decoders import MODELS, Read, alone, block, made, plain


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_states_keys_and_values_are_those_of_all_tokens(name: str, attention: str) -> None:
    model = made(name)
    model.set_attn_implementation(attention)
    found, expected = alone(model), plain(model)
    assert (found.tokens, expected.tokens) == ([2, 2], [7, 4])
    found.check(expected)
    assert "forward" not in vars(block(model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_keys_and_values_are_equal_where_nothing_else_is_made(name: str, dtype: torch.dtype) -> None:
    model = made(name).to(dtype)
    found = Read(model, keys_and_values_alone)
    assert found.tokens == [1, 1]
    assert found.same_cache(plain(model))


class Packed(nn.Module):
    """A linear layer of another class, as packed ones and those with adapters are."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return 2 * out


@pytest.mark.parametrize(
    ("name", "paths"), [("opt", ("self_attn.k_proj", "fc1")), ("llama", ("self_attn.v_proj", "mlp.up_proj"))]
)
@torch.inference_mode()
def test_linear_layers_may_be_of_another_class(name: str, paths: tuple[str, ...]) -> None:
    model = made(name)
    before = plain(model)
    for path in paths:
        block(model).set_submodule(path, Packed(block(model).get_submodule(path)))
    found, expected = alone(model), plain(model)
    assert found.tokens == [2, 2]
    found.check(expected)
    assert not torch.allclose(before.states[1], expected.states[1])


@torch.inference_mode()
def test_prompts_of_a_model_are_read_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands behind the last block sees two tokens of a row, and one of a picture that several prompts share."""
    loaded = load(tiny_config(), TINY)
    language, seen = cast("Any", loaded.language), list[int]()
    rows = Rows(torch.randn(4, 12, 64, generator=torch.Generator().manual_seed(0)))
    prompts = language.prompt_ids(["a photo of", "", "what is this thing there", "a"])
    references = language.reference_ids(["a red circle", "a", "blue", "two squares"], True)
    norm = loaded.model.language_model.model.decoder.final_layer_norm
    handle = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    found = language.prefill(rows, prompts)
    language.prefix(rows, range(4), prompts).prefill(range(4))
    handle.remove()
    assert seen == [2, 1, 2]
    monkeypatch.setattr(last_block, "KINDS", {})
    plain = language.prefill(rows, prompts)
    pairs = zip(found.likelihood(references), plain.likelihood(references), strict=True)
    assert all(a.nll_sum == pytest.approx(b.nll_sum, abs=1e-5) for a, b in pairs)
    for generation in (Generation(None, 1, 8), Generation(None, 3, 6)):
        monkeypatch.setattr(last_block, "KINDS", KINDS)
        texts = language.prefill(rows, prompts).generate(generation)
        monkeypatch.setattr(last_block, "KINDS", {})
        assert texts == language.prefill(rows, prompts).generate(generation)
