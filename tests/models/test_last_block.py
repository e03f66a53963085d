"""The last block computes what is read behind it: as a plain pass, and not where it is not known to be the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3VLTextConfig,
    Qwen3VLTextModel,
)
from transformers.models.llama import modeling_llama

from blip2sweep.compression.undo import Undo
from blip2sweep.models import dropped, last_block
from blip2sweep.models.last_block import KINDS, keys_and_values_alone, last_tokens_alone
from blip2sweep.models.load import load
from blip2sweep.models.ragged import Rows
from blip2sweep.tasks import Generation
from tests.checkpoints import TINY, tiny_config

WIDTH, BLOCKS = 32, 3
SIZES = {"vocab_size": 40, "hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": 4}
OPT: dict[str, Any] = {**SIZES, "ffn_dim": 48, "max_position_embeddings": 64}
LLAMA: dict[str, Any] = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "opt": lambda: OPTForCausalLM(OPTConfig(**OPT, word_embed_proj_dim=WIDTH)),
    "opt-350m": lambda: OPTForCausalLM(OPTConfig(**OPT, word_embed_proj_dim=16, do_layer_norm_before=False)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**LLAMA, sliding_window=6)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**LLAMA)),
    "qwen2.5-vl": lambda: Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**LLAMA, rope_parameters=ROPE)),
    "qwen3-vl": lambda: Qwen3VLTextModel(Qwen3VLTextConfig(**LLAMA, head_dim=8, rope_parameters=ROPE)),
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def made(name: str) -> Any:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for parameter in model.parameters():  # biases and norms too
        nn.init.normal_(parameter.data, 1.0 if parameter.dim() == 1 else 0.0, 0.2)
    return model


def block(model: Any) -> Any:
    return model.get_decoder().layers[-1]


class Read:
    """Tokens of three rows that were read, 7 with padding on the left and then further ones."""

    def __init__(self, model: Any, inside: Callable[[Any], Any], further: int = 4) -> None:
        self.cache, self.states, decoder = DynamicCache(), list[Tensor](), model.get_decoder()
        embeds = torch.randn(
            3, 7 + further, decoder.get_input_embeddings().embedding_dim, generator=torch.Generator().manual_seed(1)
        )
        embeds, mask = embeds.to(model.dtype), torch.ones(3, 7 + further, dtype=torch.long)
        mask[1, :2], mask[2, :5] = 0, 0
        for own in (slice(0, 7), slice(7, 7 + further)):
            with inside(model):
                out = decoder(
                    inputs_embeds=embeds[:, own], attention_mask=mask[:, : own.stop], past_key_values=self.cache, use_cache=True
                )  # fmt: skip
            self.states.append(out.last_hidden_state)

    def check(self, other: Read) -> None:
        """Whether the other one has the same states behind the last tokens, and the same keys and values."""
        for a, b in zip(self.states, other.states, strict=True):
            torch.testing.assert_close(a[:, -1], b[:, -1], atol=1e-5, rtol=1e-5)
        assert self.same_cache(other)

    def same_cache(self, other: Read) -> bool:
        """Whether keys and values are equal to the last bit."""
        pairs = zip(self.cache.layers, other.cache.layers, strict=True)
        return all(torch.equal(a.keys, b.keys) and torch.equal(a.values, b.values) for a, b in pairs)

    @property
    def tokens(self) -> list[int]:
        return [x.shape[1] for x in self.states]


plain = partial(Read, inside=lambda _: nullcontext())
alone = partial(Read, inside=last_tokens_alone)


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


# ---- where all tokens pass


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
