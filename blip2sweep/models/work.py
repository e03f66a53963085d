"""What a model computes of one sample, in numbers of tokens: FLOPs follow from it and from the shapes of layers. No torch.

One multiplication and one addition are two FLOPs. Counted are linear layers, the convolution that makes tokens of
pixels, both products of attention, projections and heads: what torch's FlopCounterMode counts too. Norms, activations,
softmax, embeddings, positions, pooling and the search among beams are not.

They are those of one picture, or of one question about one. It is read and answered alone, without padding, and nothing
of it is known before: what cells or questions of a picture share counts for each of them, and so does what the last block
leaves out of a prompt (`last_block.py`). A text counts with its end.
With beams the prompt is read once, and each further token is written by all of them. Where options are ranked, reading
each of them is the answer. The likelihood of references is a measurement and counts nothing. In retrieval a picture is
read alone, its share of all texts and its contrast with them are added, and the pairs that are read together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from blip2sweep.models.fields import size

Sizes = Mapping[str, object]  # `config` of a model, complete


class Asked(NamedTuple):
    """One sample as the model reads and answers it: lengths in tokens.

    prompt: of the text, by each tokenizer that reads it. In an image-text model it is the whole stream, the picture
    included. written: tokens of the answer with its end; 0 where none is written. beams: how many are written at once.
    options: tokens of each text with its end whose likelihood answers the sample. of: what is read where pictures and
    texts are matched: `picture`, `text`, `pair` of both, or `contrast` of a picture with as many texts as `prompt` says.

    entries: tiles of a picture, or its patches. entry: the shape of one, (3, height, width) or (values,). grid: (frames,
    rows, columns) of patches. All three are of models whose pictures differ in them.
    """

    prompt: tuple[int, ...] = ()
    written: int = 0
    beams: int = 1
    options: tuple[int, ...] = ()
    of: str = ""
    entries: int = 1
    entry: tuple[int, ...] = ()
    grid: tuple[int, int, int] | None = None


class Blocks(NamedTuple):
    """A pass through the stack of blocks at a module path.

    tokens: that each layer sees; others: {a layer's name inside its block: tokens} of those that see another number.
    pairs: of a query and a key in the attention of each block; windowed: {block of the stack: pairs} where they are
    others. crossed: pairs in its cross-attention.
    """

    stack: str
    tokens: int
    pairs: int
    others: Mapping[str, int] = {}
    crossed: int = 0
    windowed: Mapping[int, int] = {}


class Product(NamedTuple):
    """Products of matrices outside blocks. stage: whose they are."""

    stage: str
    flops: int


Work = Blocks | Product


class Written(NamedTuple):
    """What is read behind a prompt while a text is written and options are scored.

    tokens: that blocks see. pairs: of their own attention. heads: tokens behind which the vocabulary is scored.
    """

    tokens: int
    pairs: int
    heads: int


def written(asked: Asked, before: int) -> Written:
    """The tokens behind `before` ones that were read. The token that ends the text is not read; the first one follows from
    the prompt.

    Beams share the prompt, and all of them write until the longest ends. An option is read in one pass.
    """
    steps = max(asked.written - 1, 0)
    step_pairs = steps * before + steps * (steps + 1) // 2
    read = [n - 1 for n in asked.options]
    return Written(
        asked.beams * steps + sum(read),
        asked.beams * step_pairs + sum(n * (before + n) for n in read),
        (1 + asked.beams * steps if asked.written else 0) + sum(asked.options),
    )


def linear(tokens: int, *sizes: int) -> int:
    """The FLOPs of a linear layer. sizes: of its weight."""
    return 2 * tokens * math.prod(sizes)


def tower(stage: str, stack: str, config: Sizes) -> Iterator[Work]:
    """A vision tower of square pictures of one size, with a class token."""
    patches, patch = square_patches(config), size("vision_config.patch_size", config)
    yield Product(stage, linear(patches, 3 * patch**2, size("vision_config.hidden_size", config)))
    yield Blocks(stack, patches + 1, (patches + 1) ** 2)


def square_patches(config: Sizes) -> int:
    return (size("vision_config.image_size", config) // size("vision_config.patch_size", config)) ** 2


def queries(stack: str, config: Sizes, n: int, text: int = 0) -> Blocks:
    """A Q-Former. n: queries, which alone read the picture. text: tokens of the text that it reads beside them."""
    seen, cross = (square_patches(config) + 1 if n else 0), "crossattention.attention"
    keys = {f"{cross}.key": seen, f"{cross}.value": seen, f"{cross}.query": n, "crossattention.output.dense": n}
    branches = {
        "intermediate_query.dense": n,
        "output_query.dense": n,
        "intermediate.dense": text,
        "output.dense": text,
    }
    return Blocks(stack, n + text, (n + text) ** 2, {**keys, **branches}, n * seen)


def decoder(stack: str, before: int, behind: Written) -> Blocks:
    """A decoder-only language model. before: tokens of picture and prompt."""
    return Blocks(stack, before + behind.tokens, before**2 + behind.pairs)


def encoder_decoder(stacks: Sequence[str], read: int, asked: Asked) -> Iterator[Blocks]:
    """T5. read: tokens of the encoder.

    The decoder makes its keys and values of the encoder's tokens once for a text with all its beams, and once for each
    option.
    """
    encoder, own = stacks
    steps, options = asked.written, asked.options
    tokens = asked.beams * steps + sum(options)
    pairs = asked.beams * steps * (steps + 1) // 2 + sum(n**2 for n in options)
    keys = read * (bool(steps) + len(options))
    cross = {"layer.1.EncDecAttention.k": keys, "layer.1.EncDecAttention.v": keys}
    yield Blocks(encoder, read, read**2)
    yield Blocks(own, tokens, pairs, cross, tokens * read)


def bert(stack: str, read: int, before: int, behind: Written) -> Blocks:
    """BLIP-1's text decoder. read: tokens of its cross-attention. before: of its own prompt."""
    tokens = before + behind.tokens
    cross = {"crossattention.self.key": read, "crossattention.self.value": read}
    return Blocks(stack, tokens, before**2 + behind.pairs, cross, tokens * read)


def bert_head(tokens: int, behind: Written, config: Sizes) -> int:
    """The FLOPs of BERT's head: a transform of all tokens that the decoder reads, and its words."""
    width = size("text_config.hidden_size", config)
    return linear(tokens, width, width) + linear(behind.heads, width, size("text_config.vocab_size", config))
