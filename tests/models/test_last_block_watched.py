"""The last block computes what it always did where it is not known that another way is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama import modeling_llama

from blip2sweep.compression.undo import Undo
from blip2sweep.models import dropped
from blip2sweep.models.last_block import keys_and_values_alone, last_tokens_alone
from tests.models.decoders import BLOCKS, Read, alone, block, made, plain


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@contextmanager
def hooked(module: nn.Module) -> Iterator[None]:
    handle = module.register_forward_hook(lambda *_: None)
    yield
    handle.remove()


@contextmanager
def pre_hooked(module: nn.Module) -> Iterator[None]:
    handle = module.register_forward_pre_hook(lambda *_: None)
    yield
    handle.remove()


@contextmanager
def exchanged(owner: Any, name: str, value: object) -> Iterator[None]:
    with Undo() as undo:
        undo.attribute(owner, name, value)
        yield


@contextmanager
def without_last(model: Any) -> Iterator[None]:
    with Undo() as undo:
        for change in dropped.changes(model, [f"model.layers.{BLOCKS - 1}"]):
            undo.attribute(*change)
        yield


class LlamaDecoderLayer(modeling_llama.LlamaDecoderLayer):
    """A block that may do anything, of the name of one that is known."""


@contextmanager
def of_class(module: nn.Module, other: type) -> Iterator[None]:
    own = type(module)
    module.__class__ = other
    yield
    module.__class__ = own


class Mixing(nn.Module):
    """An MLP that is none: it looks at all tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1)


WATCHED: dict[str, Callable[[Any], Any]] = {
    "the block has a hook": lambda m: hooked(block(m)),
    "its attention has one": lambda m: pre_hooked(block(m).self_attn),
    "a linear layer has one": lambda m: pre_hooked(block(m).mlp.down_proj),
    "a forward of its own": lambda m: exchanged(block(m), "forward", block(m).forward),
    "a layer's forward of its own": lambda m: exchanged(block(m).mlp, "forward", block(m).mlp.forward),
    "another class": lambda m: of_class(block(m), LlamaDecoderLayer),
    "a part of another class": lambda m: exchanged(block(m), "_modules", {**block(m)._modules, "mlp": Mixing()}),
    "the last block is dropped": without_last,
    "features enter behind it": lambda m: exchanged(m.config, "vision_config", SimpleNamespace(deepstack_visual_indexes=[0, 1, 2])),
    "it is trained": lambda m: exchanged(block(m), "training", True),
}  # fmt: skip


@pytest.mark.parametrize("case", WATCHED)
@torch.inference_mode()
def test_all_tokens_pass_where(case: str) -> None:
    model = made("llama")
    with WATCHED[case](model):
        found, expected = alone(model), plain(model)
        assert Read(model, keys_and_values_alone).tokens == [7, 4]
    assert found.tokens == [7, 4]
    assert all(map(torch.equal, found.states, expected.states))
    assert alone(model).tokens == [2, 2]


def test_all_tokens_pass_where_gradients_may_go() -> None:
    assert alone(made("opt")).tokens == [7, 4]


@torch.inference_mode()
def test_all_tokens_pass_in_half_precision() -> None:
    model = made("opt").to(torch.bfloat16)
    found = alone(model)
    assert found.tokens == [7, 4]
    assert found.same_cache(plain(model))


@torch.inference_mode()
def test_a_token_alone_passes_as_it_is() -> None:
    model = made("opt")
    found, expected = alone(model, further=1), plain(model, further=1)
    assert found.tokens == [2, 1]
    assert found.cache.get_seq_length() == 8
    found.check(expected)


@torch.inference_mode()
def test_a_pass_that_fails_leaves_the_block_as_it_was() -> None:
    model = made("opt")
    with pytest.raises(RuntimeError, match="out of memory"), last_tokens_alone(model):
        raise RuntimeError("out of memory")
    assert "forward" not in vars(block(model))
