"""BLIP-1's question answering as planning knows it: an encoder reads picture and question, a decoder the encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from blip2sweep.models.architecture import Family, Implementation, Stage
from blip2sweep.models.work import Asked, Product, Sizes, Work, bert, bert_head, square_patches, tower, written

MODEL_TYPE = "blip"
STACKS = ("text_encoder.encoder.layer", "text_decoder.bert.encoder.layer")
FAMILIES = {"bert": Family(STACKS, prompt_alone=True, presets=MODEL_TYPE, behind_pictures=STACKS)}


def stages(model: Mapping[str, object]) -> tuple[Stage, ...]:
    return (
        Stage("vision", ("vision_model",), ("vision_model.encoder.layers",), by_block=True),
        Stage("language", ("text_encoder", "text_decoder"), FAMILIES[str(model["family"])].stacks),
    )


def work(model: Mapping[str, object], config: Sizes, asked: Asked) -> Iterator[Work]:
    """See `models.architecture.work`. The encoder is a BERT that reads all of its text at once, the decoder begins with one
    token."""
    n, behind = asked.prompt[0], written(asked, 1)
    yield from tower("vision", "vision_model.encoder.layers", config)
    yield bert(STACKS[0], square_patches(config) + 1, n, written(Asked(), n))
    yield bert(STACKS[1], n, 1, behind)
    yield Product("language", bert_head(1 + behind.tokens, behind, config))


def no_graphs(model: Mapping[str, object]) -> str | None:
    """See `models.architecture.no_graphs`."""
    return None


def implementation(model: Mapping[str, object]) -> Implementation:
    from blip2sweep.models.blip import answering

    return answering
