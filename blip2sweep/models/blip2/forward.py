"""Pixels -> image features -> query features -> what the language model reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blip2sweep.models.blip2 import BRIDGE, VISION
from blip2sweep.models.learning import inference
from blip2sweep.models.ragged import Rows
from blip2sweep.models.text import Ids, padded

if TYPE_CHECKING:
    from transformers import Blip2ForConditionalGeneration


class Vision:
    """Pixels (images, 3, height, width) float32 -> image features (images, 1 + patches, width of the ViT).

    The features have the ViT's dtype.
    """

    name = VISION

    def __init__(self, model: Blip2ForConditionalGeneration, where: torch.device) -> None:
        self.tower, self.where = model.vision_model, where

    @property
    def n_blocks(self) -> int:
        return len(self.tower.encoder.layers)

    def run(self, rows: Rows) -> Rows:
        return self.leave(self.blocks(self.enter(rows), 0, self.n_blocks))

    @inference
    def enter(self, rows: Rows) -> Rows:
        dtype = self.tower.embeddings.patch_embedding.weight.dtype
        return Rows(self.tower.embeddings(rows.values.to(self.where, dtype, non_blocking=True)))

    @inference
    def blocks(self, state: Rows, start: int, stop: int) -> Rows:
        values = state.values
        for block in self.tower.encoder.layers[start:stop]:
            values = block(values)
        return Rows(values)

    @inference
    def leave(self, state: Rows) -> Rows:
        return Rows(self.tower.post_layernorm(state.values))


class Bridge:
    """Image features -> query features (images, num_query_tokens, width of the Q-Former), in its dtype.

    They are not projected yet: the language model is up to 5 times wider, and these features are kept for other cells.
    """

    name = BRIDGE

    def __init__(self, model: Blip2ForConditionalGeneration) -> None:
        self.model = model

    @inference
    def run(self, rows: Rows) -> Rows:
        queries = self.model.query_tokens.expand(len(rows), -1, -1)
        out = self.model.qformer(query_embeds=queries, encoder_hidden_states=rows.values)
        return Rows(out.last_hidden_state)


class QueriesFirst:
    """The language model's input: projected query features, padding on the family's side, and the prompt."""

    tokens = 64  # an upper estimate for queries and prompt
    alike = True

    def __init__(self, model: Blip2ForConditionalGeneration, pad: int) -> None:
        self.model, self.pad = model, pad

    @inference
    def embed(self, pictures: Rows | None, prompts: Sequence[Ids], left: bool) -> tuple[Tensor, Tensor]:
        """Embeddings (batch, queries + longest prompt, width) and their mask (batch, same) int64.

        left: padding stands between picture and prompt, otherwise behind the prompt. Raises RuntimeError where the
        query features have another number of rows or queries.
        """
        embedding = self.model.language_model.get_input_embeddings()
        device = embedding.weight.device
        ids, mask = padded(prompts, self.pad, left)
        if pictures is None:
            return embedding(ids.to(device)), mask.to(device)
        features = self._projected(self.queries(pictures, prompts), len(prompts)).to(device, embedding.weight.dtype)
        picture_mask = torch.ones(features.shape[:2], dtype=torch.long)
        return torch.cat([features, embedding(ids.to(device))], 1), torch.cat([picture_mask, mask], 1).to(device)

    def queries(self, pictures: Rows, prompts: Sequence[Ids]) -> Tensor:
        """Query features (batch, num_query_tokens, width of the Q-Former). BLIP-2's are those of the stage before."""
        return pictures.values

    def _projected(self, query_features: Tensor, rows: int) -> Tensor:
        """Query features in the width and dtype of the language model.

        query_features: (batch, num_query_tokens, width of the Q-Former), on any device.
        """
        n = self.model.config.num_query_tokens
        if query_features.shape[:2] != (rows, n):
            shape = tuple(query_features.shape)
            raise RuntimeError(f"query features {shape} for {rows} prompts and {n} query tokens")
        projection = self.model.language_projection
        return projection(query_features.to(projection.weight.device, projection.weight.dtype))

    def pictured(self, text: Ids, tokens: int) -> list[bool]:
        return [True] * tokens + [False] * len(text)
