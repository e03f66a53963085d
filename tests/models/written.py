"""Texts that a small decoder writes behind prompts, some of which are padded on the left."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from blip2sweep.models.decoder import greedy, select
from blip2sweep.models.room import make_room
from blip2sweep.models.steps import own_step
from blip2sweep.tasks import Generation

ROWS, PROMPT, PAD = 16, 5, 1


class Prompts(NamedTuple):
    ids: Tensor
    mask: Tensor


def prompts() -> Prompts:
    """Some are padded on the left."""
    ids = torch.randint(3, 40, (ROWS, PROMPT), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    for row in range(0, ROWS, 3):
        mask[row, : 1 + row % 4] = 0
    return Prompts(torch.where(mask.bool(), ids, PAD), mask)


class Written:
    """Texts of a decoder. logits: of each step. own: steps through the model's own modules."""

    @torch.inference_mode()
    def __init__(
        self, model: Any, generation: Generation, ends: list[int], room: bool = False, own: bool = False
    ) -> None:
        self.model, self.cache, self.logits = model, DynamicCache(), list[Tensor]()
        asked = prompts()
        first = self._read(asked.ids, asked.mask)
        if room:
            make_room(self.cache)
        self.own = own_step(model, self.cache) if own else None
        self.texts = greedy(first, asked.mask, partial(select, self.cache), self._step, generation, ends, PAD)

    def _read(self, ids: Tensor, mask: Tensor) -> Tensor:
        places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = self.model(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=self.cache)
        self.logits.append(out.logits[:, -1])
        return self.logits[-1]

    def _step(self, tokens: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        if self.own is None:
            self._read(tokens, mask)
        else:
            self.logits.append(self.own(tokens, mask, rows))
        return self.logits[-1].clone()  # greedy forbids ends in what it gets

    def same(self, other: Written) -> bool:
        """Whether texts and the logits of all steps are equal, to the last bit, and rows were dropped on the way."""
        pairs = zip(self.logits, other.logits, strict=True)
        dropped = len({len(step) for step in self.logits}) > 1
        return dropped and self.texts == other.texts and all(torch.equal(a, b) for a, b in pairs)


def ends_of(model: Any) -> list[int]:
    """Tokens that end some rows at once, some later, and some never."""
    free = Written(model, Generation(None, 1, 14), [0]).texts
    return [free[0][0], free[1][3], free[2][9]]


def generated(model: Any, generation: Generation, ends: list[int]) -> list[list[int]]:
    """By `generate` of transformers, padded to the same length."""
    asked = prompts()
    out = model.generate(
        asked.ids, attention_mask=asked.mask, do_sample=False, eos_token_id=ends, pad_token_id=PAD,
        max_new_tokens=generation.max_new_tokens, min_new_tokens=generation.min_new_tokens,
    )[:, PROMPT:].tolist()  # fmt: skip
    return [row + [PAD] * (generation.max_new_tokens - len(row)) for row in out]
