"""InstructBLIP as graphs: the ViT, the Q-Former that reads it with a question, and Llama."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blip2sweep.models.blip2.graphs import ROWS, Tower, queries_first
from blip2sweep.models.graphs import Graph, Graphs, Input, Session, Stages
from blip2sweep.models.graphs.causal import TOKENS, Causal, causal_graph, paths_in
from blip2sweep.models.graphs.decoder import GraphDecoder, Laid
from blip2sweep.models.graphs.stage import GraphStage
from blip2sweep.models.llama import Llama
from blip2sweep.models.ragged import Rows
from blip2sweep.models.text import Ids, padded

if TYPE_CHECKING:
    from transformers import InstructBlipForConditionalGeneration

    from blip2sweep.models.instructblip.model import InstructedQueries

VISION, QUESTIONS, LANGUAGE = "vision", "questions", "language"


class Reading(nn.Module):
    """Questions and image features -> what the language model reads of both (rows, queries, its width)."""

    def __init__(self, model: InstructBlipForConditionalGeneration) -> None:
        super().__init__()
        self.query_tokens, self.qformer = model.query_tokens, model.qformer
        self.language_projection = model.language_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor, features: Tensor) -> tuple[Tensor]:
        queries = self.query_tokens.expand(input_ids.shape[0], -1, -1)
        mask = torch.cat([torch.ones_like(queries[..., 0]).long(), attention_mask], 1)
        out = self.qformer(
            input_ids=input_ids, attention_mask=mask, query_embeds=queries, encoder_hidden_states=features
        )
        return (self.language_projection(out.last_hidden_state[:, : queries.shape[1]]),)


def graphs(model: InstructBlipForConditionalGeneration, own: Llama, inputs: InstructedQueries) -> Graphs:
    """See `HasGraphs`. own: the model's own last stage, and its inputs."""

    def stages(sessions: Mapping[str, Session]) -> Stages:
        def laid(pictures: Rows, prompts: Sequence[Ids]) -> Laid:
            ids, mask = padded(inputs.asked(prompts), inputs.tokenizer.pad_token_id, left=False)
            seen = sessions[QUESTIONS](input_ids=ids, attention_mask=mask, features=pictures.values.float())
            return queries_first(Rows(seen["pictures"]), prompts, own.base.pad)

        images = (GraphStage(VISION, sessions[VISION], "pixels", "features"),)
        return Stages(images, GraphDecoder(own, own.base, sessions[LANGUAGE], laid, positions=True))

    return Graphs((_vision(model), _questions(model, inputs), _language(model)), stages)


def _vision(model: InstructBlipForConditionalGeneration) -> Graph:
    side, tower = model.config.vision_config.image_size, Tower(model.vision_model)
    pixels = Input("pixels", torch.zeros(2, 3, side, side), ROWS)
    return Graph(VISION, tower, (pixels,), ("features",), paths_in(model, tower))


def _questions(model: InstructBlipForConditionalGeneration, own: InstructedQueries) -> Graph:
    ids, module = torch.ones(2, 5, dtype=torch.long), Reading(model)
    features = Input("features", torch.zeros(2, *own.features), ROWS)
    inputs = (Input("input_ids", ids, TOKENS), Input("attention_mask", ids, TOKENS), features)
    return Graph(QUESTIONS, module, inputs, ("pictures",), paths_in(model, module))


def _language(model: InstructBlipForConditionalGeneration) -> Graph:
    llama = model.language_model
    return causal_graph(LANGUAGE, Causal(llama.model, llama.get_output_embeddings(), llama.config), model)
