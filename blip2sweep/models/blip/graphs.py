"""BLIP-1 as graphs: vision, for questions their encoder, the keys and values that the decoder reads of it, the decoder.

What the cross-attention reads does not change while a text is written, so its keys and values are a graph of their own that
runs once. The decoder gets them as inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import EncoderDecoderCache

from blip2sweep.models.blip2.graphs import Tower
from blip2sweep.models.dropped import hollow
from blip2sweep.models.graphs import Graph, Input
from blip2sweep.models.graphs.masks import added, both_ways, left_to_right
from blip2sweep.models.graphs.past import LENGTH, cache_of, presents, states

if TYPE_CHECKING:
    from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering
    from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel, BlipTextModel

VISION, QUESTIONS, CROSS, LANGUAGE = "vision", "questions", "cross", "language"
DECODER, CROSS_ATTENTION, KINDS = "text_decoder", "crossattention.self", ("key", "value")
ROWS, TOKENS, SEEN = {0: "rows"}, {0: "rows", 1: "tokens"}, {0: "rows", 1: "seen"}


class Asking(nn.Module):
    """Questions (rows, tokens) and image features -> the states that the decoder reads (rows, tokens, width)."""

    def __init__(self, encoder: BlipTextModel) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, features: Tensor) -> tuple[Tensor]:
        mask = both_ways(attention_mask)
        read = self.encoder(input_ids=input_ids, attention_mask=mask, encoder_hidden_states=features)
        return (read.last_hidden_state,)


class Crossing(nn.Module):
    """States (rows, tokens, width) -> keys and values (rows, heads, tokens, width) for each block of the decoder."""

    def __init__(self, decoder: BlipTextLMHeadModel) -> None:
        super().__init__()
        self.width, blocks = _head(decoder), decoder.bert.encoder.layer
        held = [blocks[i].get_submodule(CROSS_ATTENTION) for i in _left(decoder)]
        self.layers = nn.ModuleList(own.get_submodule(kind) for own in held for kind in KINDS)

    def forward(self, states: Tensor) -> tuple[Tensor, ...]:
        shape = (states.shape[0], states.shape[1], -1, self.width)
        return tuple(layer(states).view(shape).transpose(1, 2) for layer in self.layers)


class Writing(nn.Module):
    """The decoder. masked: whether the states that it reads have padding."""

    def __init__(self, decoder: BlipTextLMHeadModel, masked: bool) -> None:
        super().__init__()
        self.decoder, self.masked, self.n = decoder, masked, len(_left(decoder))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, at: Tensor, *further: Tensor
    ) -> tuple[Tensor, ...]:
        """further: the mask of the states where they have padding, their keys and values, and those of the text."""
        cross, past = further[-4 * self.n : -2 * self.n], further[-2 * self.n :]
        cache = EncoderDecoderCache(cache_of(past), cache_of(cross))
        cache.is_updated = dict.fromkeys(range(self.n), True)
        hidden = self.decoder.bert(
            input_ids=input_ids, attention_mask=added(left_to_right(attention_mask, input_ids.shape[1])),
            position_ids=position_ids, past_key_values=cache, use_cache=True, is_decoder=True,
            encoder_hidden_states=cross[0],  # nothing reads it, because its keys and values are known
            encoder_attention_mask=both_ways(further[0]) if self.masked else None,
        ).last_hidden_state  # fmt: skip
        wanted = hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1]))
        return (self.decoder.cls(wanted), *presents(cache.self_attention_cache))


def _head(decoder: BlipTextLMHeadModel) -> int:
    """The width of a head."""
    return int(decoder.config.hidden_size // decoder.config.num_attention_heads)


def _left(decoder: BlipTextLMHeadModel) -> list[int]:
    """The numbers of the blocks that are not dropped."""
    return [i for i, block in enumerate(decoder.bert.encoder.layer) if not hollow(block)]


# ---- as graphs


def vision(model: BlipForConditionalGeneration | BlipForQuestionAnswering) -> Graph:
    side = model.config.vision_config.image_size
    pixels = Input("pixels", torch.zeros(2, 3, side, side), ROWS)
    return Graph(VISION, Tower(model.vision_model), (pixels,), ("features",), {"vision_model": "vision_model"})


def questions(model: BlipForQuestionAnswering, features: tuple[int, int]) -> Graph:
    """features: their number and width."""
    ids = torch.ones(2, 5, dtype=torch.long)
    pictures = Input("features", torch.zeros(2, *features), ROWS)
    inputs = (Input("input_ids", ids, TOKENS), Input("attention_mask", ids, TOKENS), pictures)
    return Graph(QUESTIONS, Asking(model.text_encoder), inputs, ("states",), {"encoder": "text_encoder"})


def cross(decoder: BlipTextLMHeadModel) -> Graph:
    held = [f"{DECODER}.bert.encoder.layer.{i}.{CROSS_ATTENTION}.{kind}" for i in _left(decoder) for kind in KINDS]
    states = Input("states", torch.zeros(2, 5, decoder.config.encoder_hidden_size), SEEN)
    paths = {f"layers.{i}": path for i, path in enumerate(held)}
    return Graph(CROSS, Crossing(decoder), (states,), _names(decoder), paths)


def language(decoder: BlipTextLMHeadModel, masked: bool) -> Graph:
    """masked: whether the states that it reads have padding."""
    heads, kept = decoder.config.num_attention_heads, len(_left(decoder))
    inputs = (*_text(), *_seen(decoder, masked))
    paths, past = {"decoder": DECODER}, states(kept, heads, _head(decoder))
    return Graph(LANGUAGE, Writing(decoder, masked), inputs, ("logits",), paths, past)


def _text() -> Iterator[Input]:
    ids = torch.ones(2, 4, dtype=torch.long)
    yield Input("input_ids", ids, TOKENS)
    yield Input("attention_mask", torch.ones(2, 4 + LENGTH, dtype=torch.long), {0: "rows", 1: "all_tokens"})
    yield Input("position_ids", ids, TOKENS)
    yield Input("at", ids[:, :2], {0: "rows", 1: "wanted"})


def _seen(decoder: BlipTextLMHeadModel, masked: bool) -> Iterator[Input]:
    if masked:
        yield Input("states_mask", torch.ones(2, 5, dtype=torch.long), SEEN)
    for name in _names(decoder):
        shape = (2, decoder.config.num_attention_heads, 5, _head(decoder))
        yield Input(name, torch.zeros(shape), {0: "rows", 2: "seen"})


def _names(decoder: BlipTextLMHeadModel) -> tuple[str, ...]:
    """The names of the keys and values of states."""
    return tuple(f"cross.{i}.{kind}" for i in range(len(_left(decoder))) for kind in KINDS)
