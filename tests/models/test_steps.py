"""Steps through an OPT's own modules write what steps of transformers do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from blip2sweep.models.load import load
from blip2sweep.models.steps import own_step
from blip2sweep.tasks import Generation
from tests.checkpoints import TINY, tiny_config
from tests.models.decoders import MODELS, made
from tests.models.written import Written, ends_of, generated


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@torch.inference_mode()
def known(model: Any) -> bool:
    return own_step(model, DynamicCache()) is not None


class Packed(nn.Module):
    """A linear layer of another class, as packed ones are."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.linear(x)


def pack(model: Any) -> None:
    for block in model.get_decoder().layers:
        block.fc1, block.self_attn.q_proj = Packed(block.fc1), Packed(block.self_attn.q_proj)


def without_biases(model: Any) -> None:
    block = model.get_decoder().layers[0]
    block.fc2.bias = block.self_attn.k_proj.bias = None


@pytest.mark.parametrize("change", [lambda _: None, pack, without_biases], ids=["plain", "packed", "without biases"])
def test_texts_are_those_of_generate_and_logits_those_of_transformers(change: Callable[[Any], None]) -> None:
    model = made("opt")
    change(model)
    ends = ends_of(model)
    for least in (None, 4):
        generation = Generation(None, 1, 14, min_new_tokens=least)
        found = Written(model, generation, ends, room=True, own=True)
        assert found.own is not None
        assert found.same(Written(model, generation, ends))
        assert found.texts == generated(model, generation, ends)


@torch.inference_mode()
def test_norms_behind_sums_and_embeddings_of_another_width() -> None:
    model = made("opt-350m")
    caches = DynamicCache(), DynamicCache()
    tokens, mask = torch.arange(12).view(3, 4), torch.ones(3, 5, dtype=torch.long)
    mask[1, :2] = 0
    for cache in caches:
        model(input_ids=tokens, attention_mask=mask[:, :4], past_key_values=cache)
    step = own_step(model, caches[0])
    assert step is not None
    found = step(tokens[:, :1], mask, torch.arange(3))
    expected = model(input_ids=tokens[:, :1], attention_mask=mask, past_key_values=caches[1]).logits[:, -1]
    assert torch.equal(found, expected)


def hook(model: Any) -> None:
    model.get_decoder().layers[1].fc1.register_forward_pre_hook(lambda *_: None)


def hook_decoder(model: Any) -> None:
    model.get_decoder().register_forward_hook(lambda *_: None)


def drop(model: Any) -> None:
    """As a dropped block is: with another forward."""
    model.get_decoder().layers[0].forward = lambda states, **_: states


def replace_block(model: Any) -> None:
    model.get_decoder().layers[0] = nn.Identity()


def replace_attention(model: Any) -> None:
    model.get_decoder().layers[0].self_attn = type("Other", (type(model.get_decoder().layers[0].self_attn),), {})(
        model.config, 0
    )


def replace_decoder(model: Any) -> None:
    model.model.decoder.__class__ = type("OPTDecoder", (type(model.model.decoder),), {"__module__": __name__})


def compile_block(model: Any) -> None:
    """In place. Nothing is compiled before the first call."""
    model.get_decoder().layers[0].compile()


CHANGES: dict[str, Callable[[Any], Any]] = {
    "hook in a block": hook,
    "hook on the decoder": hook_decoder,
    "dropped block": drop,
    "other block": replace_block,
    "other attention": replace_attention,
    "other decoder": replace_decoder,
    "half precision": lambda model: model.to(torch.bfloat16),
    "training": lambda model: model.train(),
    "one block in training": lambda model: model.get_decoder().layers[0].train(),
    "one dropout in training": lambda model: model.get_decoder().layers[0].self_attn.train(),
    "compiled block": compile_block,
    "eager attention": lambda model: model.set_attn_implementation("eager"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_nothing_else_is_known(what: str) -> None:
    model = made("opt")
    assert known(model)
    CHANGES[what](model)
    assert not known(model)


def test_nothing_is_known_under_a_hook_on_all_modules() -> None:
    model, hook = made("opt"), nn.modules.module.register_module_forward_pre_hook(lambda *_: None)
    try:
        assert not known(model)
    finally:
        hook.remove()
    assert known(model)


def test_nothing_is_known_where_sdpa_is_somebody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", lambda *_, **__: None)
    assert not known(made("opt"))


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"opt", "opt-350m"}))
def test_other_models_are_not_known(name: str) -> None:
    assert not known(made(name))


def test_nothing_is_known_where_gradients_may_be_wanted() -> None:
    assert own_step(made("opt"), DynamicCache()) is None


def test_the_embedded_model_is_known() -> None:
    assert known(load(tiny_config(), TINY).language.model)
