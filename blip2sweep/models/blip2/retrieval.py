"""BLIP-2's image-text retrieval as planning knows it: a ViT, and a Q-Former that reads pictures, texts, or both."""

from __future__ import annotations

from collections.abc import Mapping

from blip2sweep.models.architecture import Family, Implementation, Stage
from blip2sweep.tasks.task import RequestType

MODEL_TYPE = "blip-2"
REQUESTS: tuple[RequestType, ...] = ("match",)
QFORMER = "qformer.encoder.layer"
FAMILIES = {"qformer": Family((QFORMER,), presets="any", behind_pictures=(QFORMER,))}


def stages(model: Mapping[str, object]) -> tuple[Stage, ...]:
    """The stages: of a picture alone only the ViT's features are shared, since the Q-Former reads it with texts too."""
    reading = ("query_tokens", "embeddings", "qformer", "vision_projection", "text_projection", "itm_head")
    return (
        Stage("vision", ("vision_model",), ("vision_model.encoder.layers",), by_block=True),
        Stage("matching", reading, FAMILIES[str(model["family"])].stacks),
    )


def implementation(model: Mapping[str, object]) -> Implementation:
    from blip2sweep.models.blip2 import matching

    return matching
