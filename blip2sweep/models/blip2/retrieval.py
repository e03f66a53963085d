"""BLIP-2's image-text retrieval as planning knows it: a ViT, and a Q-Former that reads pictures, texts, or both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from blip2sweep.models.architecture import Family, Implementation, Stage
from blip2sweep.models.fields import size
from blip2sweep.models.work import Asked, Product, Sizes, Work, linear, queries, tower
from blip2sweep.tasks.task import RequestType

MODEL_TYPE = "blip-2"
REQUESTS: tuple[RequestType, ...] = ("match",)
QFORMER = "qformer.encoder.layer"
VISION, MATCHING = "vision", "matching"
FAMILIES = {"qformer": Family((QFORMER,), presets="any", behind_pictures=(QFORMER,))}


def stages(model: Mapping[str, object]) -> tuple[Stage, ...]:
    """The stages: of a picture alone only the ViT's features are shared, since the Q-Former reads it with texts too."""
    reading = ("query_tokens", "embeddings", "qformer", "vision_projection", "text_projection", "itm_head")
    return (
        Stage(VISION, ("vision_model",), ("vision_model.encoder.layers",), by_block=True),
        Stage(MATCHING, reading, FAMILIES[str(model["family"])].stacks),
    )


def work(model: Mapping[str, object], config: Sizes, asked: Asked) -> Iterator[Work]:
    """See `models.architecture.work`: of a picture, a text, a contrast, or a pair that is read together."""
    n, own = size("num_query_tokens", config), size("qformer_config.hidden_size", config)
    compared = size("image_text_hidden_size", config)
    if asked.of == "picture":
        yield from tower(VISION, "vision_model.encoder.layers", config)
        yield queries(QFORMER, config, n)
        yield Product(MATCHING, linear(n, own, compared))
    elif asked.of == "text":
        yield queries(QFORMER, config, 0, asked.prompt[0])
        yield Product(MATCHING, linear(1, own, compared))
    elif asked.of == "contrast":
        yield Product(MATCHING, linear(asked.prompt[0], n, compared))
    else:
        yield queries(QFORMER, config, n, asked.prompt[0])
        yield Product(MATCHING, linear(n, own, 2))


def implementation(model: Mapping[str, object]) -> Implementation:
    from blip2sweep.models.blip2 import matching

    return matching
