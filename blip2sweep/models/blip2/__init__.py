"""BLIP-2 as planning knows it: a ViT, a Q-Former whose queries read it, and a language model behind a projection."""

from __future__ import annotations

from collections.abc import Mapping

from blip2sweep.models.architecture import Family, Implementation, Stage

MODEL_TYPE = "blip-2"
FAMILIES = {
    "opt": Family(("language_model.model.decoder.layers",)),
    "t5": Family(("language_model.encoder.block", "language_model.decoder.block"), prompt_alone=True),
}
VISION, BRIDGE, LANGUAGE = "vision", "bridge", "language"


def stages(model: Mapping[str, object]) -> tuple[Stage, ...]:
    """The stages: the queries feed the Q-Former, the projection feeds the language model."""
    return (
        Stage(VISION, ("vision_model",), ("vision_model.encoder.layers",), by_block=True),
        Stage(BRIDGE, ("query_tokens", "qformer"), ("qformer.encoder.layer",)),
        Stage(LANGUAGE, ("language_projection", "language_model"), FAMILIES[str(model["family"])].stacks),
    )


def implementation(model: Mapping[str, object]) -> Implementation:
    from blip2sweep.models.blip2 import model as own

    return own
