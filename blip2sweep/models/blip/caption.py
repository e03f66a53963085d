"""BLIP-1's captioning model as planning knows it."""

from __future__ import annotations

from collections.abc import Mapping

from blip2sweep.models.architecture import Family, Implementation, Stage

MODEL_TYPE = "blip"
DECODER = "text_decoder.bert.encoder.layer"
FAMILIES = {"bert": Family((DECODER,), presets=MODEL_TYPE, behind_pictures=(DECODER,))}


def stages(model: Mapping[str, object]) -> tuple[Stage, ...]:
    return (
        Stage("vision", ("vision_model",), ("vision_model.encoder.layers",), by_block=True),
        Stage("language", ("text_decoder",), FAMILIES[str(model["family"])].stacks),
    )


def implementation(model: Mapping[str, object]) -> Implementation:
    from blip2sweep.models.blip import captioning

    return captioning
