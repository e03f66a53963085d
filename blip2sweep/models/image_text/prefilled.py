"""What an image-text model has read: from there references are scored and texts written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

from blip2sweep.models.decoder import greedy, select, unchanged
from blip2sweep.models.learning import inference
from blip2sweep.models.pieces import ALL, in_pieces
from blip2sweep.models.room import make_room
from blip2sweep.models.text import Ids, Likelihood, Text, beams, padded

if TYPE_CHECKING:
    from blip2sweep.models.image_text.language import Decoder
    from blip2sweep.models.ragged import Rows
    from blip2sweep.tasks.generation import Generation


@dataclass(eq=False)
class Prefilled:
    """Pictures and prompts that were read.

    ids: of prompts with their pictures. own: the picture of each of them; None where there is one for each. mask (batch,
    tokens): of what is in the cache. first (batch, vocabulary): logits behind it. delta (batch, 1): what the position of
    a later token is beyond its number, where pictures have positions of their own; None elsewhere.
    """

    language: Decoder
    ids: Sequence[Ids]
    pictures: Rows
    mask: Tensor
    cache: DynamicCache
    first: Tensor
    delta: Tensor | None
    own: Sequence[int] | None = None

    def _later(self, ids: Tensor, mask: Tensor, rows: Tensor | slice) -> Tensor:
        """Logits (batch, tokens, vocabulary) of further tokens. rows: which rows of this batch they belong to."""
        delta = None if self.delta is None else self.delta[rows]
        places = self.language.positions.later(mask, ids.shape[1], delta)
        return self.language.model(
            input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=self.cache, use_cache=True
        ).logits  # fmt: skip

    @inference
    def likelihood(self, references: Sequence[Ids]) -> list[Likelihood]:
        return in_pieces(references, self.language.base.pad, self.logits)

    @inference
    def logits(self, references: Sequence[Ids], rows: slice = ALL) -> Tensor:
        """(tokens of all references, vocabulary). rows: those that the references belong to."""
        ids, own = (x.to(self.mask.device) for x in padded(references, self.language.base.pad, left=False))
        logits = self.first[rows, None]
        if ids.shape[1] > 1:
            with unchanged(self.cache, rows):
                mask = torch.cat([self.mask[rows], own[:, 1:]], 1)
                logits = torch.cat([logits, self._later(ids[:, :-1], mask, rows)], 1)
        return logits[own.bool()]

    @inference
    def generate(self, generation: Generation) -> list[Text]:
        return self.language.base.texts(self._written(generation))

    def _written(self, generation: Generation) -> list[Ids]:
        return self._greedy(generation) if generation.num_beams == 1 else self._by_beams(generation)

    def _greedy(self, generation: Generation) -> list[Ids]:
        def step(tokens: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
            return self._later(tokens, mask, rows)[:, -1]

        language = self.language
        make_room(self.cache)
        keep = partial(select, self.cache)
        return greedy(self.first, self.mask, keep, step, generation, language.base.ends, language.base.pad)

    def _by_beams(self, generation: Generation) -> list[Ids]:
        """Text through `generate` of transformers, without the settings of the checkpoint's generation config.

        The cache is made here as for greedy decoding. transformers would make its entries of the kinds in the config, by
        number, and where blocks are dropped others follow.
        """
        language, pictures = self.language, self.pictures if self.own is None else self.pictures.take(self.own)
        inputs = language.inputs(pictures, self.ids)
        settings = GenerationConfig(
            eos_token_id=language.base.ends, pad_token_id=language.base.pad, **beams(generation)
        )
        out = language.model.generate(
            **inputs, mm_encoder_outputs=language.features(pictures), generation_config=settings,
            past_key_values=DynamicCache(),
        )  # fmt: skip
        return out[:, inputs["input_ids"].shape[1] :].tolist()
