"""BLIP-2 as graphs: the ViT, the Q-Former with its projection, and OPT with its embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from blip2sweep.errors import UserError
from blip2sweep.models.blip2 import BRIDGE, LANGUAGE, VISION, no_graphs
from blip2sweep.models.blip2.forward import QueriesFirst
from blip2sweep.models.dropped import hollow
from blip2sweep.models.graphs import Graph, Graphs, Input, Session, Stages
from blip2sweep.models.graphs.decoder import GraphDecoder, Laid
from blip2sweep.models.graphs.past import LENGTH, cache_of, presents, states
from blip2sweep.models.graphs.stage import GraphStage
from blip2sweep.models.opt import Opt
from blip2sweep.models.ragged import Rows
from blip2sweep.models.text import Ids, LanguageModel, padded

if TYPE_CHECKING:
    from transformers import Blip2ForConditionalGeneration, Blip2Processor, OPTForCausalLM

ROWS = {0: "rows"}


def graphs(model: Blip2ForConditionalGeneration, processor: Blip2Processor, family: str) -> Graphs:
    """See `HasGraphs`."""
    if why := no_graphs({"family": family}):
        raise UserError(why)
    size = model.config.vision_config.image_size
    n = 1 + (size // model.config.vision_config.patch_size) ** 2
    pixels, features = torch.zeros(2, 3, size, size), torch.zeros(2, n, model.config.vision_config.hidden_size)

    def stages(sessions: Mapping[str, Session]) -> Stages:
        images = (
            GraphStage(VISION, sessions[VISION], "pixels", "features"),
            GraphStage(BRIDGE, sessions[BRIDGE], "features", "pictures"),
        )
        return Stages(images, language(model, processor, sessions[LANGUAGE]))

    return Graphs(
        (
            Graph(VISION, Tower(model.vision_model), (Input("pixels", pixels, ROWS),), ("features",), {"vision_model": "vision_model"}),
            Graph(BRIDGE, Bridge(model), (Input("features", features, ROWS),), ("pictures",), {
                name: name for name in ("qformer", "language_projection")}),
            decoder_graph(LANGUAGE, OptGraph(model.language_model)),
        ),
        stages,
    )  # fmt: skip


def language(model: Blip2ForConditionalGeneration, processor: Blip2Processor, session: Session) -> GraphDecoder:
    base = LanguageModel(
        model.language_model, processor.tokenizer, "language_model",
        QueriesFirst(model, processor.tokenizer.pad_token_id),
    )  # fmt: skip
    return GraphDecoder(Opt(base), base, session, lambda pictures, prompts: queries_first(pictures, prompts, base.pad))


def queries_first(pictures: Rows, prompts: Sequence[Ids], pad: int) -> Laid:
    """[pictures][padding][prompt]. pictures: dense rows in the width of the language model."""
    ids, mask = padded(prompts, pad, left=True)
    values = pictures.values
    beside = values.new_zeros(len(prompts), ids.shape[1], values.shape[2])
    there = torch.ones(values.shape[:2], dtype=torch.long)
    return Laid(
        torch.cat([pad * there, ids], 1), torch.cat([there, mask], 1),
        torch.cat([there, torch.zeros_like(ids)], 1).bool(), torch.cat([values, beside], 1),
    )  # fmt: skip


class Tower(nn.Module):
    """pixels (rows, 3, height, width) -> image features (rows, 1 + patches, width)."""

    def __init__(self, vision_model: nn.Module) -> None:
        super().__init__()
        self.vision_model = vision_model

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        tower = self.vision_model
        values = cast("nn.Module", tower.embeddings)(pixels)
        for block in cast("nn.ModuleList", cast("nn.Module", tower.encoder).layers):
            values = block(values)
        return (cast("nn.Module", tower.post_layernorm)(values),)


class Bridge(nn.Module):
    """Image features -> query features in the width of the language model (rows, queries, width)."""

    def __init__(self, model: Blip2ForConditionalGeneration) -> None:
        super().__init__()
        self.query_tokens, self.qformer = model.query_tokens, model.qformer
        self.language_projection = model.language_projection

    def forward(self, features: Tensor) -> tuple[Tensor]:
        queries = self.query_tokens.expand(features.shape[0], -1, -1)
        out = self.qformer(query_embeds=queries, encoder_hidden_states=features)
        return (self.language_projection(out.last_hidden_state),)


class OptGraph(nn.Module):
    """Tokens and pictures in their places -> logits at some of them, and the longer keys and values."""

    def __init__(self, language_model: OPTForCausalLM) -> None:
        super().__init__()
        self.language_model = language_model

    def forward(
        self, input_ids: Tensor, pictures: Tensor, is_picture: Tensor, attention_mask: Tensor, at: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        model, cache = self.language_model, cache_of(past)
        embeds = torch.where(is_picture[..., None], pictures, model.get_input_embeddings()(input_ids))
        places = (attention_mask.cumsum(1) * attention_mask - 1)[:, attention_mask.shape[1] - input_ids.shape[1] :]
        hidden = model.model(
            inputs_embeds=embeds, attention_mask=attention_mask, position_ids=places, past_key_values=cache,
            use_cache=True,
        ).last_hidden_state  # fmt: skip
        wanted = hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1]))
        return (model.get_output_embeddings()(wanted), *presents(cache))


def decoder_graph(name: str, module: OptGraph) -> Graph:
    """The graph of a decoder (models/graphs/decoder.py). Blocks that are dropped have no states."""
    model = module.language_model
    heads, width = model.config.num_attention_heads, model.config.hidden_size
    layers = sum(not hollow(block) for block in model.model.decoder.layers)
    tokens, all_tokens = {0: "rows", 1: "tokens"}, {0: "rows", 1: "all_tokens"}
    ids = torch.zeros(2, 4, dtype=torch.long)
    inputs = (
        Input("input_ids", ids, tokens),
        Input("pictures", torch.zeros(2, 4, model.get_input_embeddings().weight.shape[1]), tokens),
        Input("is_picture", ids.bool(), tokens),
        Input("attention_mask", torch.ones(2, 4 + LENGTH, dtype=torch.long), all_tokens),
        Input("at", torch.zeros(2, 2, dtype=torch.long), {0: "rows", 1: "wanted"}),
    )
    paths = {"language_model": "language_model"}
    return Graph(name, module, inputs, ("logits",), paths, states(layers, heads, width // heads))
