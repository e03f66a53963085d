"""BLIP-1 as graphs: vision, for questions their encoder, the keys and values that the decoder reads of it, the decoder.

What the cross-attention reads does not change while a text is written, so its keys and values are a graph of their own that
runs once. The decoder gets them as inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import EncoderDecoderCache

from blip2sweep.models.graphs import Graph, Input
from blip2sweep.models.traced import alive, both_ways, chosen, emptied, filled, left_to_right, states

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering
    from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel, BlipTextModel

VISION, QUESTIONS, CROSS, LANGUAGE = "vision", "questions", "cross", "language"
KINDS = ("key", "value")
ROWS = {0: "rows"}


class Seeing(nn.Module):
    """Pixels (images, 3, height, width) -> image features (images, 1 + patches, width)."""

    def __init__(self, model: BlipForConditionalGeneration | BlipForQuestionAnswering) -> None:
        super().__init__()
        self.tower = model.vision_model

    def forward(self, pixels: Tensor) -> Tensor:
        values = self.tower.embeddings(pixels)
        for block in self.tower.encoder.layers:
            values = block(values)
        features: Tensor = self.tower.post_layernorm(values)
        return features


class Asking(nn.Module):
    """Questions (rows, tokens) and pictures -> the states that the decoder reads (rows, tokens, width)."""

    def __init__(self, encoder: BlipTextModel) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pictures: Tensor) -> Tensor:
        read = self.encoder(
            input_ids=input_ids, attention_mask=both_ways(attention_mask), encoder_hidden_states=pictures
        )
        states: Tensor = read.last_hidden_state
        return states


class Crossing(nn.Module):
    """States (rows, tokens, width) -> for each block of the decoder keys and values (rows, heads, tokens, width)."""

    def __init__(self, decoder: BlipTextLMHeadModel) -> None:
        super().__init__()
        blocks, self.width = decoder.bert.encoder.layer, _head(decoder)
        held = [blocks[i].crossattention.self for i in alive(blocks)]
        self.layers = nn.ModuleList(layer for own in held for layer in (own.key, own.value))

    def forward(self, states: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            layer(states).view(states.shape[0], states.shape[1], -1, self.width).transpose(1, 2)
            for layer in self.layers
        )


class Writing(nn.Module):
    """The decoder. n: the number of its blocks. masked: whether the states that it reads have padding."""

    def __init__(self, decoder: BlipTextLMHeadModel, masked: bool) -> None:
        super().__init__()
        self.decoder, self.masked = decoder, masked
        self.n = len(alive(decoder.bert.encoder.layer))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, at: Tensor, *further: Tensor
    ) -> tuple[Tensor, ...]:
        """further: the mask of the states where they have padding, their keys and values, and those of the text."""
        mask = both_ways(further[0]) if self.masked else None
        cross, pasts = further[-4 * self.n : -2 * self.n], further[-2 * self.n :]
        cache = EncoderDecoderCache(filled(pasts), filled(cross))
        cache.is_updated = dict.fromkeys(range(self.n), True)
        read = self.decoder.bert(
            input_ids=input_ids, attention_mask=left_to_right(attention_mask, input_ids.shape[1]),
            position_ids=position_ids, past_key_values=cache, use_cache=True, is_decoder=True,
            encoder_hidden_states=cross[0],  # their number of tokens alone is read, because their keys are known
            encoder_attention_mask=mask,
        )  # fmt: skip
        logits = self.decoder.cls(chosen(read.last_hidden_state, at))
        return (logits, *emptied(cache.self_attention_cache))


def _head(decoder: BlipTextLMHeadModel) -> int:
    """The width of a head."""
    return int(decoder.config.hidden_size // decoder.config.num_attention_heads)


# ---- as graphs


def vision(model: BlipForConditionalGeneration | BlipForQuestionAnswering) -> Graph:
    side = model.config.vision_config.image_size
    return Graph(
        VISION, Seeing(model), (Input("pixels", torch.zeros(2, 3, side, side), ROWS),), ("features",),
        {"tower": "vision_model"},
    )  # fmt: skip


def questions(model: BlipForQuestionAnswering) -> Graph:
    text = torch.ones(2, 5, dtype=torch.long)
    free, width = {0: "rows", 1: "tokens"}, model.config.vision_config.hidden_size
    patches = 1 + (model.config.vision_config.image_size // model.config.vision_config.patch_size) ** 2
    inputs = (
        Input("input_ids", text, free), Input("attention_mask", text, free),
        Input("pictures", torch.zeros(2, patches, width), ROWS),
    )  # fmt: skip
    return Graph(QUESTIONS, Asking(model.text_encoder), inputs, ("states",), {"encoder": "text_encoder"})


def cross(decoder: BlipTextLMHeadModel, seen: int) -> Graph:
    """seen: an example of the number of states."""
    blocks, width = decoder.bert.encoder.layer, decoder.config.encoder_hidden_size
    paths = [f"text_decoder.bert.encoder.layer.{i}.crossattention.self.{kind}" for i in alive(blocks) for kind in KINDS]
    return Graph(
        CROSS, Crossing(decoder), (Input("states", torch.zeros(2, seen, width), {0: "rows", 1: "seen"}),),
        tuple(cross_names(decoder)), {f"layers.{i}": path for i, path in enumerate(paths)},
    )  # fmt: skip


def cross_names(decoder: BlipTextLMHeadModel) -> list[str]:
    """The names of the keys and values of states."""
    return [f"cross.{kind}.{i}" for i in range(len(alive(decoder.bert.encoder.layer))) for kind in KINDS]


def language(decoder: BlipTextLMHeadModel, seen: int, masked: bool) -> Graph:
    heads, width, n = decoder.config.num_attention_heads, _head(decoder), len(alive(decoder.bert.encoder.layer))
    kept = states(n, heads, width)
    return Graph(
        LANGUAGE, Writing(decoder, masked), (*_text(), *_seen(decoder, seen, masked)), ("logits",),
        {"decoder": "text_decoder"}, kept,
    )  # fmt: skip


def _text() -> Iterator[Input]:
    new, every = torch.ones(2, 3, dtype=torch.long), torch.ones(2, 7, dtype=torch.long)
    yield Input("input_ids", new, {0: "rows", 1: "tokens"})
    yield Input("attention_mask", every, {0: "rows", 1: "all"})
    yield Input("position_ids", new, {0: "rows", 1: "tokens"})
    yield Input("at", new[:, :2], {0: "rows", 1: "wanted"})


def _seen(decoder: BlipTextLMHeadModel, seen: int, masked: bool) -> Iterator[Input]:
    if masked:
        yield Input("states_mask", torch.ones(2, seen, dtype=torch.long), {0: "rows", 1: "seen"})
    keys = torch.zeros(2, decoder.config.num_attention_heads, seen, _head(decoder))
    for name in cross_names(decoder):
        yield Input(name, keys, {0: "rows", 2: "seen"})
