"""Llama as the language model behind pictures. It reads [pictures][padding][prompt], from left to right.

It is read and written as OPT is (`opt.py`), with two differences. Positions are rotary and do not count padding, so they
are said for every token. A reference is tokenized by itself, as the model was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from transformers import DynamicCache

from blip2sweep.models.learning import inference
from blip2sweep.models.opt import Opt
from blip2sweep.models.text import Ids

if TYPE_CHECKING:
    from transformers.modeling_outputs import ModelOutput

    from blip2sweep.models.ragged import Rows


class Llama(Opt):
    """A `Language` (blip2sweep/models/language.py)."""

    def prompt_ids(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids with the BOS that the tokenizer sets: that of InstructBLIP's Vicuna is `</s>`."""
        return self.base.prompts(texts)

    def reference_ids(self, references: Sequence[str], prompted: bool) -> list[Ids]:
        return self.base.with_ends(references)

    def hidden(self, mask: Tensor, cache: DynamicCache, **tokens: Tensor) -> Tensor:
        new = next(iter(tokens.values())).shape[1]
        return super().hidden(mask, cache, position_ids=positions(mask)[:, -new:], **tokens)

    @inference
    def read(self, pictures: Rows | None, texts: Sequence[Ids], references: Sequence[Ids]) -> ModelOutput:
        embeds, mask = self.base.inputs.embed(pictures, texts, left=True)
        given = {"inputs_embeds": embeds, "attention_mask": mask, "position_ids": positions(mask)}
        return self.model.model(use_cache=False, **given)


def positions(mask: Tensor) -> Tensor:
    """(rows, tokens): the position of each token among those of its row. Padding has that of the token before it."""
    return (mask.cumsum(-1) - 1).clamp(min=0)
