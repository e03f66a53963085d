"""Pixels -> image features, as a whole or block by block: cells that differ from some block on share those before it."""

from __future__ import annotations

import torch
from torch import Tensor

from blip2sweep.models.load import Loaded


@torch.inference_mode()
def embed(loaded: Loaded, pixels: Tensor) -> Tensor:
    """pixels (batch, 3, height, width) float32 on any device -> (batch, 1 + patches, width of the ViT), its dtype."""
    embeddings = loaded.model.vision_model.embeddings
    dtype = embeddings.patch_embedding.weight.dtype
    return embeddings(pixels.to(loaded.device, dtype, non_blocking=True))


@torch.inference_mode()
def run_blocks(loaded: Loaded, state: Tensor, start: int, stop: int) -> Tensor:
    """The state (batch, 1 + patches, width) before block `start` -> that before block `stop`."""
    for block in loaded.model.vision_model.encoder.layers[start:stop]:
        state = block(state)
    return state


@torch.inference_mode()
def finish(loaded: Loaded, state: Tensor) -> Tensor:
    """The state after the last block -> image features of the same shape."""
    return loaded.model.vision_model.post_layernorm(state)


def n_blocks(loaded: Loaded) -> int:
    return len(loaded.model.vision_model.encoder.layers)


def vision(loaded: Loaded, pixels: Tensor) -> Tensor:
    """pixels (batch, 3, height, width) float32 on any device -> (batch, 1 + patches, width of the ViT), its dtype."""
    return finish(loaded, run_blocks(loaded, embed(loaded, pixels), 0, n_blocks(loaded)))
