"""What a worker asks of the last stage of an architecture: to write texts, or to score pictures against texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.models.ragged import Rows
    from blip2sweep.models.text import Ids, Likelihood, Text
    from blip2sweep.tasks.generation import Generation


class Prefilled(Protocol):
    """Pictures and prompts that a language model has read.

    Likelihoods may be computed any number of times before the text.
    """

    def likelihood(self, references: Sequence[Ids]) -> list[Likelihood]:
        """The likelihood of one reference for each row, given its picture and prompt.

        references: token ids with their end; they may be empty.
        """

    def generate(self, generation: Generation) -> list[Text]:
        """One text for each row, deterministically. Afterwards this cannot be used again."""


@runtime_checkable
class Learning(Prefilled, Protocol):
    """What a language model has read, where it can be trained: inside of `learning` gradients go through all of it."""

    def logits(self, references: Sequence[Ids]) -> Tensor:
        """(tokens of all references, vocabulary): what `likelihood` is computed of."""


class Language(Protocol):
    """The last stage: a language model that reads rows of the stage before as pictures.

    tokens: an upper estimate of the tokens of picture and prompt, by which batches are sized (`row_bytes`).
    """

    tokens: int

    def prompt_ids(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of prompts, with the special tokens around them."""

    def reference_ids(self, references: Sequence[str], prompted: bool) -> list[Ids]:
        """Token ids of references, each with its end. prompted: whether a text stands before them."""

    def prefill(self, pictures: Rows, prompts: Sequence[Ids]) -> Prefilled:
        """Read pictures and as many prompts, of any lengths. Raises RuntimeError for rows that are no pictures."""

    def row_bytes(self, generation: Generation) -> int:
        """The bytes of the keys and values of one row while it is written, all beams together."""

    # For calibration and error propagation: one forward pass over rows of one length, as the model is trained.

    def as_read(self, prompt: Ids, reference: Ids) -> Ids:
        """The text behind the picture, in the stream of tokens that has pictures."""

    def pictured(self, picture: Rows, text: Ids) -> list[bool]:
        """For each token of that stream, whether it is one of the picture's. picture: one row. text: from `as_read`."""

    def read(self, pictures: Rows | None, texts: Sequence[Ids], references: Sequence[Ids]) -> object:
        """One pass over rows without padding. texts: from `as_read`. pictures: None leaves them out."""

    def logits(self, output: object) -> Tensor:
        """(rows, tokens, vocabulary) of the output of `read`."""

    def in_stream(self, path: str) -> bool:
        """Whether the inputs of the layer at `path` are tokens of the stream that has pictures."""


class SharedPrefix(Protocol):
    """Pictures that were read once, with what all prompts behind them begin with."""

    def prefill(self, chosen: Sequence[int]) -> Prefilled:
        """As `Language.prefill` of the prompts with these numbers, and of their pictures."""


@runtime_checkable
class Sharing(Language, Protocol):
    """A language model that can read a picture once for all prompts about it.

    shares: whether it does: where a picture's tokens come first and see nothing behind them.
    """

    shares: bool

    def prefix(self, pictures: Rows, rows: Sequence[int], prompts: Sequence[Ids]) -> SharedPrefix | None:
        """Read pictures, with what the prompts have in common. rows: the picture of each prompt.

        Each picture has a prompt. None where prompts of a picture differ before it ends.
        """


@runtime_checkable
class Matcher(Language, Protocol):
    """The last stage of a model that scores pictures against texts and writes none: `prefill` raises RuntimeError."""

    def seen(self, pictures: Rows) -> Tensor:
        """(pictures, …): what is compared of pictures alone."""

    def said(self, texts: Sequence[Ids]) -> Tensor:
        """(texts, …): what is compared of texts alone. texts: from `reference_ids`, of any lengths."""

    def similarity(self, seen: Tensor, said: Tensor) -> Tensor:
        """(pictures, texts) float32: the contrastive score of each pair."""

    def matched(self, pictures: Rows, texts: Sequence[Ids]) -> Tensor:
        """(pairs,) float32: the score of each picture read together with its text."""
