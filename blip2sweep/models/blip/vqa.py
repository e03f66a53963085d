"""BLIP-1's question answering as planning knows it: an encoder reads picture and question, a decoder the encoder."""

from __future__ import annotations

from collections.abc import Mapping

from blip2sweep.models.architecture import Family, Implementation, Stage

MODEL_TYPE = "blip"
STACKS = ("text_encoder.encoder.layer", "text_decoder.bert.encoder.layer")
FAMILIES = {"bert": Family(STACKS, prompt_alone=True, presets=MODEL_TYPE, behind_pictures=STACKS)}


def stages(model: Mapping[str, object]) -> tuple[Stage, ...]:
    return (
        Stage("vision", ("vision_model",), ("vision_model.encoder.layers",), by_block=True),
        Stage("language", ("text_encoder", "text_decoder"), FAMILIES[str(model["family"])].stacks),
    )


def implementation(model: Mapping[str, object]) -> Implementation:
    from blip2sweep.models.blip import answering

    return answering
