"""BLIP-1's captioning model as planning knows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from blip2sweep.models.architecture import Family, Implementation, Stage
from blip2sweep.models.work import Asked, Product, Sizes, Work, bert, bert_head, square_patches, tower, written

MODEL_TYPE = "blip"
DECODER = "text_decoder.bert.encoder.layer"
FAMILIES = {"bert": Family((DECODER,), presets=MODEL_TYPE, behind_pictures=(DECODER,))}


def stages(model: Mapping[str, object]) -> tuple[Stage, ...]:
    return (
        Stage("vision", ("vision_model",), ("vision_model.encoder.layers",), by_block=True),
        Stage("language", ("text_decoder",), FAMILIES[str(model["family"])].stacks),
    )


def work(model: Mapping[str, object], config: Sizes, asked: Asked) -> Iterator[Work]:
    """See `models.architecture.work`."""
    n, behind = asked.prompt[0], written(asked, asked.prompt[0])
    yield from tower("vision", "vision_model.encoder.layers", config)
    yield bert(DECODER, square_patches(config) + 1, n, behind)
    yield Product("language", bert_head(n + behind.tokens, behind, config))


def no_graphs(model: Mapping[str, object]) -> str | None:
    """See `models.architecture.no_graphs`."""
    return None


def implementation(model: Mapping[str, object]) -> Implementation:
    from blip2sweep.models.blip import captioning

    return captioning
