"""BLIP-1's text decoder: a BERT that reads left to right, and what it describes or answers by cross-attention.

It is read and written as OPT is (`opt.py`). Positions are absolute and do not count padding, so they are said for every
token. What the cross-attention reads has keys and values of its own, which are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache

from blip2sweep.models.learning import inference
from blip2sweep.models.llama import positions
from blip2sweep.models.opt import Opt, Prefilled
from blip2sweep.models.pieces import ALL
from blip2sweep.models.text import Ids, LanguageModel, Prompt, beams, padded

if TYPE_CHECKING:
    from transformers.cache_utils import CacheLayerMixin
    from transformers.modeling_outputs import ModelOutput

    from blip2sweep.models.ragged import Rows
    from blip2sweep.tasks.generation import Generation


class TextDecoder(LanguageModel):
    """BLIP-1's text decoder. Its inputs are what the cross-attention reads: states (batch, tokens, width) and a mask."""

    @property
    def ends(self) -> list[int]:
        """BERT's separator: BLIP passes it to `generate`, and its generation config says another token."""
        return [int(self.model.config.sep_token_id)]


class Seen(EncoderDecoderCache):
    """Keys and values of a text, and of the states that it reads by cross-attention (mask: their own tokens).

    rows: those that are left while texts are written, or whose references are read; None for all.
    """

    def __init__(self, states: Tensor, mask: Tensor) -> None:
        super().__init__(DynamicCache(), DynamicCache())
        self.states, self.mask = states, mask
        self.rows: Tensor | slice | None = None

    @property
    def layers(self) -> list[CacheLayerMixin]:
        return [*self.self_attention_cache.layers, *self.cross_attention_cache.layers]

    @property
    def cross(self) -> dict[str, Tensor]:
        """The states of the rows that are left, as arguments of the decoder."""
        states, mask = (x if self.rows is None else x[self.rows] for x in (self.states, self.mask))
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}


class Captioner(Opt):
    """A `Language` (blip2sweep/models/language.py) that describes pictures. The text goes on after the prompt."""

    def prompt_ids(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids with [DEC] first, and no end."""
        ids = self.base.ids(texts, add_special_tokens=False)
        return [Prompt([self.model.config.bos_token_id, *row], text) for row, text in zip(ids, texts, strict=True)]

    def reference_ids(self, references: Sequence[str], prompted: bool) -> list[Ids]:
        return self.base.with_ends(references)

    def first(self, prompt: Ids) -> Ids:
        """What the decoder reads of a prompt before it writes."""
        return prompt

    def taught(self, text: Ids, reference: Ids) -> Ids:
        """What the decoder reads in one pass. text: from `as_read`."""
        return text

    @inference
    def prefill(self, pictures: Rows, prompts: Sequence[Ids]) -> Prefilled:
        seen = Seen(*self.base.inputs.embed(pictures, prompts, left=False))
        ids, mask = padded([self.first(p) for p in prompts], self.base.pad, left=True)
        ids, mask = ids.to(seen.mask.device), mask.to(seen.mask.device)
        return Written(self, ids, mask, seen, self.hidden(mask, seen, input_ids=ids)[:, -1])

    def hidden(self, mask: Tensor, cache: Seen, **tokens: Tensor) -> Tensor:
        """The last hidden state (batch, new tokens, width) behind the head's transform, before its words."""
        new = tokens["input_ids"].shape[1]
        given = {**tokens, "attention_mask": mask, "position_ids": positions(mask)[:, -new:]}
        return self._transformed(self._read(cache, past_key_values=cache, use_cache=True, **given)).to(mask.device)

    def _read(self, seen: Seen, **given: object) -> ModelOutput:
        return self.model.bert(is_decoder=True, **seen.cross, **given)

    def _transformed(self, output: ModelOutput) -> Tensor:
        return self.model.cls.predictions.transform(output.last_hidden_state)

    # ---- one pass over rows of one length

    @inference
    def read(self, pictures: Rows | None, texts: Sequence[Ids], references: Sequence[Ids]) -> ModelOutput:
        assert pictures is not None  # planning refuses texts alone
        seen = Seen(*self.base.inputs.embed(pictures, texts, left=False))
        rows = [self.taught(*pair) for pair in zip(texts, references, strict=True)]
        return self._read(seen, input_ids=torch.tensor(rows, device=seen.mask.device), use_cache=False)

    def logits(self, output: ModelOutput) -> Tensor:
        return self.model.get_output_embeddings()(self._transformed(output))

    def in_stream(self, path: str) -> bool:
        """No token of a text is a picture's."""
        return False


class Answerer(Captioner):
    """A `Language` that answers questions: an encoder reads the question with the picture, the decoder writes alone."""

    def prompt_ids(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of questions for the encoder, with the special tokens that the tokenizer sets around them."""
        return self.base.prompts(texts)

    def first(self, prompt: Ids) -> Ids:
        return [self.model.config.bos_token_id]

    def as_read(self, prompt: Ids, reference: Ids) -> Ids:
        """The question: the encoder does not read the reference."""
        return prompt

    def taught(self, text: Ids, reference: Ids) -> Ids:
        return [self.model.config.bos_token_id, *reference[:-1]]


class Written(Prefilled):
    """Pictures and prompts that were read. embeds: the token ids of the decoder's prompts."""

    cache: Seen

    @inference
    def logits(self, references: Sequence[Ids], rows: slice = ALL) -> Tensor:
        self.cache.rows = rows
        found = super().logits(references, rows)
        self.cache.rows = None
        return found

    def next(self, tokens: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        self.cache.rows = rows
        return super().next(tokens, mask, rows)

    def _by_beams(self, generation: Generation) -> list[Ids]:
        """Text through `generate` of transformers, which reads the prompts again."""
        base = self.language.base
        out = base.model.generate(
            input_ids=self.embeds, attention_mask=self.mask, eos_token_id=base.ends, pad_token_id=base.pad,
            do_sample=False, **self.cache.cross, **beams(generation),
        )  # fmt: skip
        return out[:, self.embeds.shape[1] :].tolist()


def read_cross_masks(decoder: nn.Module) -> None:
    """Give the cross-attention of BLIP-1's text model its mask, which transformers 5.23 drops.

    `BlipTextAttention` hands on `attention_mask` alone, and `BlipTextSelfAttention` reads `encoder_attention_mask` where
    there are states to cross to. Without it the padding of shorter questions is read as text.
    """
    for path, module in decoder.named_modules():
        if path.endswith("crossattention.self"):
            module.register_forward_pre_hook(_with_mask, with_kwargs=True)


def _with_mask(
    module: nn.Module, args: tuple[object, ...], given: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    if given.get("encoder_attention_mask") is None:  # a release may mend it
        given = {**given, "encoder_attention_mask": given.get("attention_mask")}
    return args, given
