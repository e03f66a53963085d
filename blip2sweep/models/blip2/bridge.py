"""Image features -> query features: what the Q-Former hands over to the language model."""

from __future__ import annotations

import torch
from torch import Tensor

from blip2sweep.models.load import Loaded


@torch.inference_mode()
def bridge(loaded: Loaded, image_features: Tensor) -> Tensor:
    """(batch, 1 + patches, width of the ViT) -> (batch, num_query_tokens, width of the Q-Former), its dtype.

    Not projected yet: the language model is up to 5 times wider, and these are what is kept.
    """
    queries = loaded.model.query_tokens.expand(len(image_features), -1, -1)
    return loaded.model.qformer(query_embeds=queries, encoder_hidden_states=image_features).last_hidden_state


@torch.inference_mode()
def project(loaded: Loaded, query_features: Tensor) -> Tensor:
    """(batch, num_query_tokens, width of the Q-Former) on any device -> that of the language model, its dtype."""
    projection = loaded.model.language_projection
    return projection(query_features.to(projection.weight.device, projection.weight.dtype))
