"""Tokens and texts: what the families of language models share."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from blip2sweep.models.config_file import end_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from blip2sweep.models.ragged import Rows
    from blip2sweep.tasks.generation import Generation

Ids = list[int]
MOST_TEXTS = 100_000  # whose tokens are kept, each way: some thirty megabytes


class Prompt(list[int]):
    """The token ids of a prompt, and its text as the task made it."""

    def __init__(self, ids: Sequence[int], text: str) -> None:
        super().__init__(ids)
        self.text = text

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths of all that is read of it. Prompts that agree in these need no padding between them."""
        return (len(self),)


def lengths(prompt: Ids) -> tuple[int, ...]:
    """The `lengths` of a prompt, which may be plain token ids."""
    return prompt.lengths if isinstance(prompt, Prompt) else (len(prompt),)


def in_common(prompts: Sequence[Ids]) -> Ids:
    """The first tokens of all prompts, so few that each has one behind them."""
    alike = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*prompts, strict=False))
    return [tokens[0] for tokens in alike][: min(map(len, prompts)) - 1]


def followed_by(prompt: Ids, more: Ids) -> Ids:
    """A prompt with further tokens, which carries what the prompt carries."""
    longer = copy(prompt)
    longer.extend(more)
    return longer


class Text(NamedTuple):
    """A generated text, and the number of its tokens before the end."""

    text: str
    tokens: int


class Likelihood(NamedTuple):
    """Sum of -log p (nats) over a reference's tokens and its EOS, and their number."""

    nll_sum: float
    nll_tokens: int


class Inputs(Protocol):
    """How an architecture puts a picture before a prompt. It is the same for each family of language models.

    tokens: an upper estimate of the tokens of picture and prompt, by which batches are sized. alike: whether a picture
    is the same tokens of a decoder's stream, whatever the prompt.
    """

    tokens: int
    alike: bool

    def embed(self, pictures: Rows | None, prompts: Sequence[Ids], left: bool) -> tuple[Tensor, Tensor]:
        """Embeddings (batch, tokens, width) and mask (batch, tokens) int64. left: padding stands before the prompt."""

    def pictured(self, text: Ids, tokens: int) -> list[bool]:
        """For each token of a row without padding, whether it is one of the picture's."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of a model: its tokenizer, and the ends that its generation config says.

    known, said: token ids of texts, and texts of token ids, so far: cells are asked, and say, the same again and again.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    known: dict[tuple[str, bool], array[int]] = field(default_factory=dict, init=False, repr=False)
    said: dict[bytes, Text] = field(default_factory=dict, init=False, repr=False)  # by `array` of the ids

    @property
    def ends(self) -> list[int]:
        """The tokens that end generation. The first one is the end of a reference.

        BLIP-2's OPT models stop at a newline, which only the model's generation config says. Of a whole model without
        generation_config.json transformers does not look into the text config.
        """
        config = self.model.config
        return list(end_tokens(self.model.generation_config, config, config.get_text_config()))

    @property
    def pad(self) -> int:
        """What stands in place of tokens. It is never read."""
        pad = self.tokenizer.pad_token_id
        return self.ends[0] if pad is None else int(pad)

    def ids(self, texts: Sequence[str], add_special_tokens: bool) -> list[Ids]:
        """Token ids of texts. Each text is tokenized once."""
        if len(self.known) + len(texts) > MOST_TEXTS:
            self.known.clear()
        new = [text for text in dict.fromkeys(texts) if (text, add_special_tokens) not in self.known]
        if new:  # tokenizers refuse none
            encoded = self.tokenizer(new, add_special_tokens=add_special_tokens, return_attention_mask=False)
            self.known.update(
                ((text, add_special_tokens), array("q", ids)) for text, ids in zip(new, encoded.input_ids, strict=True)
            )
        return [[*self.known[text, add_special_tokens]] for text in texts]

    def prompts(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of prompts, with the special tokens that the tokenizer sets around them."""
        ids = self.ids(texts, add_special_tokens=True)
        return [Prompt(row, text) for row, text in zip(ids, texts, strict=True)]

    def with_ends(self, references: Sequence[str]) -> list[Ids]:
        """Token ids of references, each with its end."""
        end = self.ends[0]
        return [[*row, end] for row in self.ids(references, add_special_tokens=False)]

    def texts(self, rows: Sequence[Ids]) -> list[Text]:
        """The texts of token ids, which may be padded behind their end. Each row is decoded once: many cells say the same."""
        names = [array("q", row).tobytes() for row in rows]
        if len(self.said) + len(names) > MOST_TEXTS:
            self.said.clear()
        if new := {name: row for name, row in zip(names, rows, strict=True) if name not in self.said}:
            ends, pad = self.ends, self.tokenizer.pad_token_id
            texts = self.tokenizer.batch_decode([*new.values()], skip_special_tokens=True)
            own = (Text(text.strip(), _length(row, ends, pad)) for text, row in zip(texts, new.values(), strict=True))
            self.said.update(zip(new, own, strict=True))
        return [self.said[name] for name in names]


@dataclass(frozen=True, eq=False)
class LanguageModel(Tokens):
    """A language model of transformers: its path in the whole model, and how pictures enter it."""

    path: str
    inputs: Inputs

    def row_bytes(self, blocks: int, generation: Generation) -> int:
        """The bytes of the keys and values of one row in `blocks` blocks, all beams together."""
        size = self.model.get_input_embeddings().weight.element_size()
        a_token = int(2 * blocks * self.model.config.hidden_size * size)
        return a_token * (self.inputs.tokens + generation.max_new_tokens) * generation.num_beams


def _length(row: Ids, stops: Sequence[int], pad: int) -> int:
    """The number of tokens before EOS. A row without EOS ran to the limit, or is padded to a longer beam."""
    end = next((i for i, x in enumerate(row) if x in stops), None)
    if end is not None:
        return end
    return len(row) - next((i for i, x in enumerate(reversed(row)) if x != pad), len(row))


def padded(rows: Sequence[Ids], pad: int, left: bool) -> tuple[Tensor, Tensor]:
    """ids and mask (rows, longest), int64."""
    lengths = torch.tensor([len(row) for row in rows])[:, None]
    longest = int(lengths.max())
    places = torch.arange(longest)
    own = places >= longest - lengths if left else places < lengths
    ids = torch.full(own.shape, pad)
    ids[own] = torch.tensor([token for row in rows for token in row], dtype=ids.dtype)
    return ids, own.long()


def likelihoods(logits: Tensor, ids: Tensor, reference_mask: Tensor, references: Sequence[Ids]) -> list[Likelihood]:
    """The likelihood of each reference. logits: (tokens of all references, vocabulary).

    ids: the references padded (rows, longest). reference_mask: which of these tokens are their own.
    """
    labels = ids[reference_mask.bool()].to(logits.device)
    losses = cross_entropy(logits.float(), labels, reduction="none").double()
    lengths = [len(row) for row in references]
    return [Likelihood(float(part.sum()), len(part)) for part in losses.cpu().split(lengths)]


def beams(generation: Generation) -> dict[str, float]:
    """The generation settings as arguments of `generate` of transformers."""
    settings: dict[str, float] = {"num_beams": generation.num_beams, "max_new_tokens": generation.max_new_tokens}
    optional = ("min_new_tokens", "length_penalty", "repetition_penalty", "early_stopping")
    return settings | {k: v for k in optional if (v := getattr(generation, k)) is not None}
