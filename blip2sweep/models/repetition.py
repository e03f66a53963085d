"""The repetition penalty where the prompt is read as embeddings, so that `generate` of transformers does not know it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from blip2sweep.models.text import Ids

if TYPE_CHECKING:
    from blip2sweep.tasks.generation import Generation


class OfPrompts(RepetitionPenaltyLogitsProcessor):
    """The penalty of transformers over prompt and text, as where `generate` gets the prompt's token ids.

    prompts: (beams of all rows, tokens) int64.
    """

    def __init__(self, penalty: float, prompts: Tensor) -> None:
        super().__init__(penalty)
        self.prompts = prompts

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        found: Tensor = super().__call__(torch.cat([self.prompts, input_ids], 1), scores)
        return found


def repetition(generation: Generation, prompts: Sequence[Ids], device: torch.device) -> dict[str, object]:
    """The arguments of `generate` for a repetition penalty; none without one. A short prompt is filled up with a token of
    its own, which changes nothing."""
    penalty = generation.repetition_penalty
    if penalty is None:
        return {}
    longest = max(map(len, prompts))
    filled = torch.tensor([[*row, *row[:1] * (longest - len(row))] for row in prompts], device=device)
    ours = OfPrompts(penalty, filled.repeat_interleave(generation.num_beams, 0))
    return {"repetition_penalty": None, "logits_processor": LogitsProcessorList([ours])}
