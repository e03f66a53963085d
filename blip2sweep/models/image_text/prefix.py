"""A picture is read once for all prompts about it: the tokens up to its end, and those that follow it in every prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache

from blip2sweep.models.decoder import rows_of
from blip2sweep.models.image_text.prefilled import Prefilled
from blip2sweep.models.last_block import keys_and_values_alone, last_tokens_alone
from blip2sweep.models.learning import inference
from blip2sweep.models.text import Ids, in_common, padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from blip2sweep.models.image_text.language import Decoder
    from blip2sweep.models.ragged import Rows

# By `model_type`: whose tokens see those before them and no others (tests/models/image_text/test_prefix.py). Gemma 3 and
# PaliGemma read pictures, or all of a prompt, in both directions. Of other models it is not known.
FORWARD = frozenset({"llava", "llava_next", "llava_onevision", "idefics3", "internvl", "qwen2_5_vl", "qwen3_vl"})
TEXTS = frozenset({"llama", "mistral", "qwen2", "qwen2_5_vl_text", "qwen3_vl_text"})


def reads_forward(model: PreTrainedModel) -> bool:
    """Whether a token sees all tokens before it and none behind it. In a window the padding between would count."""
    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    whole = getattr(text, "sliding_window", None) is None and kinds == {"full_attention"}
    return whole and model.config.model_type in FORWARD and text.model_type in TEXTS


@inference
def prefix_of(language: Decoder, pictures: Rows, rows: Sequence[int], ids: Sequence[Ids]) -> Prefix | None:
    """Read pictures as `Sharing.prefix` says. ids: of prompts with their pictures, which are the placeholders in them."""
    ends = [len(x) - x[::-1].index(language.image_token) for x in ids]
    common = len(in_common([x[end:] for x, end in zip(ids, ends, strict=True)]))
    heads: dict[int, Ids] = {}
    for row, x, end in zip(rows, ids, ends, strict=True):
        if end == len(x) or heads.setdefault(row, x[: end + common]) != x[: end + common]:
            return None
    inputs = language.inputs(pictures, [heads[row] for row in range(len(pictures))])
    place, cache = language.positions(inputs), DynamicCache()
    with keys_and_values_alone(language.model):
        language.model(
            **inputs, position_ids=place.ids, past_key_values=cache, use_cache=True, logits_to_keep=1,
            mm_encoder_outputs=language.features(pictures),
        )  # fmt: skip
    tails = [x[end + common :] for x, end in zip(ids, ends, strict=True)]
    return Prefix(language, pictures, inputs["attention_mask"], cache, place.delta, rows, ids, tails)


@dataclass(eq=False)
class Prefix:
    """A `SharedPrefix`. mask, cache, delta: of pictures. rows: the picture of each prompt. tails: what is behind it."""

    language: Decoder
    pictures: Rows
    mask: Tensor
    cache: DynamicCache
    delta: Tensor | None
    rows: Sequence[int]
    ids: Sequence[Ids]
    tails: Sequence[Ids]

    @inference
    def prefill(self, chosen: Sequence[int]) -> Prefilled:
        rows, ids = [self.rows[i] for i in chosen], [self.ids[i] for i in chosen]
        own = torch.tensor(rows, device=self.mask.device)
        later, there = padded([self.tails[i] for i in chosen], self.language.base.pad, left=True)
        mask = torch.cat([self.mask[own], there.to(self.mask.device)], 1)
        delta = None if self.delta is None else self.delta[own]
        with last_tokens_alone(self.language.model):
            out = self.language.model(
                input_ids=later.to(self.mask.device), attention_mask=mask, past_key_values=(cache := rows_of(self.cache, own)),
                position_ids=self.language.positions.later(mask, later.shape[1], delta), use_cache=True, logits_to_keep=1,
            )  # fmt: skip
        return Prefilled(self.language, ids, self.pictures, mask, cache, out.logits[:, -1], delta, rows)
