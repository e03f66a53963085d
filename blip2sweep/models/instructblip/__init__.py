"""InstructBLIP as planning knows it: a ViT, a Q-Former whose queries read it with the question, and a language model.

Query features belong to an image and a question, so the Q-Former lies in the last stage. Of an image only the ViT's
features are shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from blip2sweep.models.architecture import Family, Implementation, Stage
from blip2sweep.models.blip2 import VISION, language_work
from blip2sweep.models.fields import size
from blip2sweep.models.work import Asked, Sizes, Work, queries, tower

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


def work(model: Mapping[str, object], config: Sizes, asked: Asked) -> Iterator[Work]:
    """See `models.architecture.work`. The second length of a prompt is that of the Q-Former's tokens."""
    n = size("num_query_tokens", config)
    yield from tower(VISION, "vision_model.encoder.layers", config)
    yield queries(QFORMER, config, n, asked.prompt[1])
    yield from language_work(FAMILIES[str(model["family"])].stacks, config, n, asked)


def no_graphs(model: Mapping[str, object]) -> str | None:
    """See `models.architecture.no_graphs`."""
    if model["family"] == "llama":
        return None
    return f"no graphs of InstructBLIP with {model['family']}; right: with llama, or backend=torch"


def implementation(model: Mapping[str, object]) -> Implementation:
    from blip2sweep.models.instructblip import model as own

    return own
