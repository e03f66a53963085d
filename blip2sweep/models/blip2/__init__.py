"""BLIP-2 as planning knows it: a ViT, a Q-Former whose queries read it, and a language model behind a projection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from blip2sweep.models.architecture import Family, Implementation, Stage
from blip2sweep.models.fields import size
from blip2sweep.models.work import (
    Asked,
    Product,
    Sizes,
    Work,
    decoder,
    encoder_decoder,
    linear,
    queries,
    tower,
    written,
)

MODEL_TYPE = "blip-2"
FAMILIES = {
    "opt": Family(("language_model.model.decoder.layers",)),
    "t5": Family(("language_model.encoder.block", "language_model.decoder.block"), prompt_alone=True),
}
WITH_GRAPHS = ("opt",)  # families that models/blip2/graphs.py has
VISION, BRIDGE, LANGUAGE = "vision", "bridge", "language"


def stages(model: Mapping[str, object]) -> tuple[Stage, ...]:
    """The stages: the queries feed the Q-Former, the projection feeds the language model."""
    return (
        Stage(VISION, ("vision_model",), ("vision_model.encoder.layers",), by_block=True),
        Stage(BRIDGE, ("query_tokens", "qformer"), ("qformer.encoder.layer",)),
        Stage(LANGUAGE, ("language_projection", "language_model"), FAMILIES[str(model["family"])].stacks),
    )


def work(model: Mapping[str, object], config: Sizes, asked: Asked) -> Iterator[Work]:
    """See `models.architecture.work`."""
    n = size("num_query_tokens", config)
    yield from tower(VISION, "vision_model.encoder.layers", config)
    yield queries("qformer.encoder.layer", config, n)
    yield from language_work(FAMILIES[str(model["family"])].stacks, config, n, asked)


def language_work(stacks: Sequence[str], config: Sizes, n: int, asked: Asked) -> Iterator[Work]:
    """What a language model of one stack, or of an encoder and a decoder, computes behind a projection of n queries. The
    first length of the prompt is its own."""
    read, words = n + asked.prompt[0], size("text_config.vocab_size", config)
    behind, two = written(asked, read), len(stacks) > 1
    own = size("text_config.d_model" if two else "text_config.hidden_size", config)
    yield Product(LANGUAGE, linear(n, size("qformer_config.hidden_size", config), own))
    if two:
        yield from encoder_decoder(stacks, read, asked)
    else:
        yield decoder(stacks[0], read, behind)
    heads = asked.beams * asked.written + sum(asked.options) if two else behind.heads
    yield Product(LANGUAGE, linear(heads, own, words))


def no_graphs(model: Mapping[str, object]) -> str | None:
    """See `models.architecture.no_graphs`."""
    if model["family"] in WITH_GRAPHS:
        return None
    return f"no graphs of BLIP-2 with {model['family']}; right: with {' or '.join(WITH_GRAPHS)}, or backend=torch"


def implementation(model: Mapping[str, object]) -> Implementation:
    from blip2sweep.models.blip2 import model as own

    return own
