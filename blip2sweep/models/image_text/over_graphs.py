"""Image-text-to-text models over sessions: tiles are put together to pictures, and features laid among the tokens."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blip2sweep.models.graphs import Graphs, Session, Stages
from blip2sweep.models.graphs.causal import Causal, causal_graph
from blip2sweep.models.graphs.decoder import GraphDecoder, Laid
from blip2sweep.models.image_text.graphs import vision
from blip2sweep.models.image_text.language import Decoder
from blip2sweep.models.image_text.pixels import feature_rows
from blip2sweep.models.part import LANGUAGE, VISION
from blip2sweep.models.ragged import Rows
from blip2sweep.models.text import Ids, padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(eq=False)
class Pictures:
    """An `ImageStage`: pixels -> the features that the language model reads, one row of tokens for each picture."""

    model: PreTrainedModel
    session: Session
    name: str = VISION

    @torch.inference_mode()
    def run(self, rows: Rows) -> Rows:
        features = self.session(pixels=rows.values.float())["features"]
        return feature_rows(self._packed(features, rows), (), rows)

    def _packed(self, features: Tensor, rows: Rows) -> Tensor | Sequence[Tensor]:
        """The features of pictures, by LLaVA-NeXT's own rule where tiles are laid beside each other."""
        pack = getattr(self.model.model, "pack_image_features", None)
        if pack is None:
            return features
        given = {"image_sizes": rows.further["image_sizes"], "image_newline": self.model.model.image_newline}
        asked = {*inspect.signature(pack).parameters} & {"vision_feature_select_strategy", "vision_aspect_ratio"}
        given |= {name: getattr(self.model.config, name) for name in asked}
        packed: Sequence[Tensor] = pack(features.split(list(rows.lengths or ())), **given)[0]
        return packed


def graphs(model: PreTrainedModel, decoder: Decoder) -> Graphs:
    """See `HasGraphs`. decoder: the model's own last stage."""
    own, text = model.model, model.config.get_text_config()
    together = decoder.adapter.token_types if "token_type_ids" in decoder.known else None
    reader = getattr(own, "language_model", None) or own.text_model
    causal = Causal(reader, model.get_output_embeddings(), text, decoder.adapter.first_position, together)

    def stages(sessions: Mapping[str, Session]) -> Stages:
        language = GraphDecoder(decoder, decoder.base, sessions[LANGUAGE], partial(laid, decoder), positions=True)
        return Stages((Pictures(model, sessions[VISION]),), language)

    return Graphs((vision(model), causal_graph(LANGUAGE, causal, model)), stages)


def laid(decoder: Decoder, pictures: Rows, prompts: Sequence[Ids]) -> Laid:
    """The tokens of prompts with their pictures, padded on the left, and features in place of placeholders."""
    rows = [decoder._ids(pictures, i, prompt) for i, prompt in enumerate(prompts)]
    ids, mask = padded(rows, decoder.base.pad, left=True)
    there, features = ids == decoder.image_token, pictures.values.float()
    values = features.new_zeros(*ids.shape, features.shape[-1])
    values[there] = features.flatten(0, -2)
    return Laid(torch.where(there, decoder.base.pad, ids), mask, there, values)
