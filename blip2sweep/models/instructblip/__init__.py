"""InstructBLIP as planning knows it: a ViT, a Q-Former whose queries read it with the question, and a language model.

Query features belong to an image and a question, so the Q-Former lies in the last stage. Of an image only the ViT's
features are shared.
"""

from __future__ import annotations

from collections.abc import Mapping

from blip2sweep.models.architecture import Family, Implementation, Stage

MODEL_TYPE = "instructblip"
QFORMER = "qformer.encoder.layer"
FAMILIES = {
    "llama": Family(("language_model.model.layers",), presets=MODEL_TYPE, behind_pictures=(QFORMER,)),
    "t5": Family(
        ("language_model.encoder.block", "language_model.decoder.block"),
        prompt_alone=True,
        presets=MODEL_TYPE,
        behind_pictures=(QFORMER,),
    ),
}


def stages(model: Mapping[str, object]) -> tuple[Stage, ...]:
    """The stages: the ViT sees the image alone, everything behind it sees the question as well."""
    reading = ("query_tokens", "qformer", "language_projection", "language_model")
    return (
        Stage("vision", ("vision_model",), ("vision_model.encoder.layers",), by_block=True),
        Stage("language", reading, (QFORMER, *FAMILIES[str(model["family"])].stacks)),
    )


def implementation(model: Mapping[str, object]) -> Implementation:
    from blip2sweep.models.instructblip import model as own

    return own
