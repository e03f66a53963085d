"""A decoder-only language model over a session: prompts are read once, references are scored and texts written from there.

The graph has the inputs `input_ids`, `pictures`, `is_picture`, `attention_mask`, `at`, where the decoder needs them
`position_ids`, and the states; and the output `logits`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from blip2sweep.models.decoder import greedy
from blip2sweep.models.graphs import Session
from blip2sweep.models.graphs.language import GraphLanguage
from blip2sweep.models.language import Language
from blip2sweep.models.ragged import Rows
from blip2sweep.models.text import Ids, Likelihood, Text, Tokens, likelihoods, padded
from blip2sweep.tasks.generation import Generation


class Laid(NamedTuple):
    """Pictures and prompts as the graph reads them. Rows end together: padding stands before or inside of them.

    ids, mask (rows, tokens) int64. is_picture (rows, tokens) bool: which tokens are taken from `pictures` (rows, tokens,
    width) float32, which is 0 elsewhere; there, ids are any token.
    """

    ids: Tensor
    mask: Tensor
    is_picture: Tensor
    pictures: Tensor


Lay = Callable[[Rows, Sequence[Ids]], Laid]


class GraphDecoder(GraphLanguage):
    """A `Language` (models/language.py). lay: arranges pictures and prompts. positions: whether the graph wants
    `position_ids`: the place of a token among those of its row. one_stream: a reference may stand behind its prompt at
    once, as while the model is trained; otherwise an encoder reads the prompt."""

    one_stream = True

    def __init__(self, own: Language, base: Tokens, session: Session, lay: Lay, positions: bool = False) -> None:
        super().__init__(own)
        self.base, self.session, self.lay, self.positions = base, session, lay, positions

    @torch.inference_mode()
    def prefill(self, pictures: Rows, prompts: Sequence[Ids]) -> GraphPrefilled:
        laid = self.lay(pictures, prompts)
        self.session.start(len(prompts))
        first = self.run(laid, laid.mask, torch.full((len(prompts), 1), laid.ids.shape[1] - 1))
        return GraphPrefilled(self, laid.mask, first[:, -1], laid.pictures.shape[-1])

    def run(self, laid: Laid, mask: Tensor, at: Tensor) -> Tensor:
        """Logits (rows, n, vocabulary) float32 at the tokens `at` (rows, n) of those that are read.

        mask (rows, all tokens) int64: of those in the states too, which the read ones join.
        """
        new = laid.ids.shape[1]
        more = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)[:, -new:]} if self.positions else {}
        return self.session(
            input_ids=laid.ids, pictures=laid.pictures, is_picture=laid.is_picture, attention_mask=mask, at=at, **more
        )["logits"]

    def further(self, ids: Tensor, mask: Tensor, width: int) -> Tensor:
        """Logits (rows, tokens, vocabulary) behind each of further tokens, none of which is a picture's."""
        nothing = torch.zeros(*ids.shape, width)
        laid = Laid(ids, mask, torch.zeros_like(ids, dtype=torch.bool), nothing)
        return self.run(laid, mask, torch.arange(ids.shape[1]).expand(ids.shape))


@dataclass(eq=False)
class GraphPrefilled:
    """Pictures and prompts whose keys and values are in the session's states. They stay until the next `prefill`.

    first (rows, vocabulary): the logits behind them. width: of an embedding.
    """

    language: GraphDecoder
    mask: Tensor
    first: Tensor
    width: int

    @torch.inference_mode()
    def likelihood(self, references: Sequence[Ids]) -> list[Likelihood]:
        """Nothing follows a reference, so padding may stand on the right."""
        ids, own = padded(references, self.language.base.pad, left=False)
        logits = self.first[:, None]
        if ids.shape[1] > 1:
            mask = torch.cat([self.mask, own[:, 1:]], 1)
            with self.language.session.unchanged():  # the text begins where the prompt ends, not after a reference
                logits = torch.cat([logits, self.language.further(ids[:, :-1], mask, self.width)], 1)
        return likelihoods(logits[own.bool()], ids, own, references)

    @torch.inference_mode()
    def generate(self, generation: Generation) -> list[Text]:
        """Raises RuntimeError for several beams, which planning refuses."""
        if generation.num_beams != 1:
            raise RuntimeError(f"graphs write with one beam, not {generation.num_beams}")
        language, base = self.language, self.language.base

        def step(tokens: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
            return language.further(tokens, mask, self.width)[:, -1]

        return base.texts(greedy(self.first, self.mask, language.session.select, step, generation, base.ends, base.pad))
