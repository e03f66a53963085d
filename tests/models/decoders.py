"""Small decoders of each kind of block that is known, and what they read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

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

from blip2sweep.models.last_block import last_tokens_alone

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


def made(name: str) -> Any:
    torch.manual_seed(0)
    return random_weights(MODELS[name]())


def random_weights(model: PreTrainedModel) -> Any:
    for parameter in model.parameters():  # biases and norms too
        nn.init.normal_(parameter.data, 1.0 if parameter.dim() == 1 else 0.0, 0.2)
    return model.eval()


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
