"""The numbers of tokens: one for each, or four for each where pictures have height and width (M-RoPE of Qwen)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from blip2sweep.models.image_text.adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel


class Place(NamedTuple):
    """position_ids of a prompt: (batch, tokens) or (4, batch, tokens). delta (batch, 1): see `language.Prefilled`."""

    ids: Tensor
    delta: Tensor | None = None


class Positions:
    def __init__(self, model: PreTrainedModel, adapter: Adapter) -> None:
        self.model, self.first = model.model, adapter.first_position
        self.by_axis = hasattr(self.model, "get_rope_index")

    def __call__(self, inputs: Mapping[str, Tensor]) -> Place:
        """The positions of prompts. inputs: the arguments of the forward."""
        mask = inputs["attention_mask"]
        numbers = self._numbers(mask)
        if not self.by_axis:
            return Place(numbers)
        grids = {k: inputs[k] for k in ("mm_token_type_ids", "image_grid_thw") if k in inputs}
        axes, delta = self.model.get_rope_index(inputs["input_ids"], attention_mask=mask, **grids)
        return Place(torch.cat([numbers[None], axes]), delta)

    def later(self, mask: Tensor, new: int, delta: Tensor | None) -> Tensor:
        """The positions of the last `new` tokens. mask: of all tokens so far."""
        numbers = self._numbers(mask)[:, -new:]
        if delta is None:
            return numbers
        return torch.cat([numbers[None], (numbers + delta)[None].expand(3, -1, -1)])

    def _numbers(self, mask: Tensor) -> Tensor:
        return (mask.cumsum(-1) - 1).clamp(min=0) + self.first
