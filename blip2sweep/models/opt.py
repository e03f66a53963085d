"""OPT as the language model behind pictures. It reads [pictures][padding][BOS prompt], from left to right.

Pictures and prompt are read once (`prefill`). References are scored and the text is written from there. Beams go
through `generate` of transformers. Padding on the right would change the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache

from blip2sweep.models.decoder import greedy, rows_of, select, unchanged
from blip2sweep.models.last_block import keys_and_values_alone, last_tokens_alone
from blip2sweep.models.learning import inference
from blip2sweep.models.pieces import ALL, in_pieces
from blip2sweep.models.repetition import repetition
from blip2sweep.models.room import make_room
from blip2sweep.models.steps import own_step
from blip2sweep.models.text import Ids, LanguageModel, Likelihood, Text, beams, followed_by, in_common, padded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from transformers.modeling_outputs import ModelOutput

    from blip2sweep.models.ragged import Rows
    from blip2sweep.tasks.generation import Generation


def tokenizer_mistakes(tokenizer: PreTrainedTokenizerBase, ids: Ids) -> Iterator[str]:
    """The mistakes of a tokenizer for OPT. ids: the tokens that it makes of a text."""
    if ids[:1] != [tokenizer.bos_token_id]:
        yield f"the tokenizer sets no BOS token ({tokenizer.bos_token_id}) before a text, as OPT was trained with"


class Opt:
    """A `Language` (blip2sweep/models/language.py)."""

    def __init__(self, base: LanguageModel) -> None:
        self.base, self.model, self.tokens = base, base.model, base.inputs.tokens

    def prompt_ids(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids with BOS first, as the tokenizer sets it. Raises RuntimeError where it does not."""
        ids, bos = self.base.prompts(texts), self.base.tokenizer.bos_token_id
        if any(row[:1] != [bos] for row in ids):
            raise RuntimeError(f"the tokenizer sets no BOS token ({bos}) before a prompt, as OPT was trained with")
        return ids

    def reference_ids(self, references: Sequence[str], prompted: bool) -> list[Ids]:
        """Token ids of references. Behind a prompt a reference begins with a space."""
        space = " " if prompted else ""
        return self.base.with_ends([space + text for text in references])

    @inference
    def prefill(self, pictures: Rows, prompts: Sequence[Ids]) -> Prefilled:
        embeds, mask = self.base.inputs.embed(pictures, prompts, left=True)
        cache = DynamicCache()
        hidden = self.last(mask, cache, inputs_embeds=embeds)
        return Prefilled(self, embeds, mask, cache, hidden, prompts)

    @property
    def shares(self) -> bool:
        """Whether pictures are read before prompts, and are the same whatever the prompt."""
        return bool(getattr(self.base.inputs, "alike", False))  # which inputs from outside may lack

    @inference
    def prefix(self, pictures: Rows, rows: Sequence[int], prompts: Sequence[Ids]) -> Prefix | None:
        """See `Sharing` (blip2sweep/models/language.py)."""
        if not all(prompts):  # a text begins behind the last token of a prompt
            return None
        common = in_common(prompts)
        embeds, mask = self.base.inputs.embed(pictures, [common] * len(pictures), left=True)
        cache = DynamicCache()
        with keys_and_values_alone(self.model):
            self.hidden(mask, cache, inputs_embeds=embeds)
        return Prefix(self, embeds, mask, cache, rows, prompts, len(common))

    def hidden(self, mask: Tensor, cache: DynamicCache, **tokens: Tensor) -> Tensor:
        """The last hidden state (batch, new tokens, width) after further tokens. Their keys and values join the cache.

        It is on the mask's device: with a device_map the last block may be on another one than the first.
        """
        out = self.model.model(attention_mask=mask, past_key_values=cache, use_cache=True, **tokens)
        return out.last_hidden_state.to(mask.device)

    def last(self, mask: Tensor, cache: DynamicCache, **tokens: Tensor) -> Tensor:
        """`hidden` (batch, width) at the last of the further tokens."""
        with last_tokens_alone(self.model):
            return self.hidden(mask, cache, **tokens)[:, -1]

    def row_bytes(self, generation: Generation) -> int:
        return self.base.row_bytes(self.model.config.num_hidden_layers, generation)

    # ---- one pass over rows of one length

    def as_read(self, prompt: Ids, reference: Ids) -> Ids:
        """Prompt and reference without its end."""
        return followed_by(prompt, reference[:-1])

    def pictured(self, picture: Rows, text: Ids) -> list[bool]:
        return self.base.inputs.pictured(text, picture.tokens(0))

    @inference
    def read(self, pictures: Rows | None, texts: Sequence[Ids], references: Sequence[Ids]) -> ModelOutput:
        embeds, mask = self.base.inputs.embed(pictures, texts, left=True)
        return self.model.model(inputs_embeds=embeds, attention_mask=mask, use_cache=False)

    def logits(self, output: ModelOutput) -> Tensor:
        return self.model.get_output_embeddings()(output.last_hidden_state)

    def in_stream(self, path: str) -> bool:
        """Whether it is a layer of the language model: a Q-Former in its stage reads queries and a question."""
        return path.startswith(f"{self.base.path}.")


@dataclass(eq=False)
class Prefix:
    """Pictures that were read with the first `common` tokens of all prompts: a `SharedPrefix`. rows: their pictures."""

    language: Opt
    embeds: Tensor
    mask: Tensor
    cache: DynamicCache
    rows: Sequence[int]
    prompts: Sequence[Ids]
    common: int

    @inference
    def prefill(self, chosen: Sequence[int]) -> Prefilled:
        own = torch.tensor([self.rows[i] for i in chosen], device=self.mask.device)
        prompts, cache = [self.prompts[i] for i in chosen], rows_of(self.cache, own)
        later, there = self.language.base.inputs.embed(None, [p[self.common :] for p in prompts], left=True)
        mask = torch.cat([self.mask[own], there], 1)
        hidden = self.language.last(mask, cache, inputs_embeds=later)
        return Prefilled(self.language, torch.cat([self.embeds[own], later], 1), mask, cache, hidden, prompts)


@dataclass(eq=False)
class Prefilled:
    """Pictures and prompts that were read. cache: keys and values. hidden (batch, width): at the last token."""

    language: Opt
    embeds: Tensor
    mask: Tensor
    cache: DynamicCache
    hidden: Tensor
    prompts: Sequence[Ids] = ()

    @inference
    def likelihood(self, references: Sequence[Ids]) -> list[Likelihood]:
        return in_pieces(references, self.language.base.pad, self.logits)

    @inference
    def logits(self, references: Sequence[Ids], rows: slice = ALL) -> Tensor:
        """rows: those that the references belong to. Nothing follows a reference, so padding may stand on the right."""
        ids, reference_mask = (x.to(self.mask.device) for x in padded(references, self.language.base.pad, left=False))
        hidden = self.hidden[rows, None]
        if ids.shape[1] > 1:
            mask = torch.cat([self.mask[rows], reference_mask[:, 1:]], 1)
            with unchanged(self.cache, rows):  # the text begins where the prompt ends, not after a reference
                hidden = torch.cat([hidden, self.language.hidden(mask, self.cache, input_ids=ids[:, :-1])], 1)
        return self.language.model.get_output_embeddings()(hidden[reference_mask.bool()])

    @inference
    def generate(self, generation: Generation) -> list[Text]:
        rows = self.greedy(generation) if generation.num_beams == 1 else self._by_beams(generation)
        return self.language.base.texts(rows)

    def _by_beams(self, generation: Generation) -> list[Ids]:
        """Text through `generate` of transformers. The beams of a row share the prompt's keys and values."""
        out = self.language.model.generate(
            attention_mask=self.mask, do_sample=False, pad_token_id=self.language.base.pad,
            inputs_embeds=self.embeds, past_key_values=_all_but_the_last(self.cache, generation.num_beams),
            **{**beams(generation), **repetition(generation, self.prompts, self.mask.device)},
        )  # fmt: skip
        return out.tolist()

    def greedy(self, generation: Generation) -> list[Ids]:
        """Token ids (batch, max_new_tokens), padded."""
        first, base = self.language.model.get_output_embeddings()(self.hidden), self.language.base
        make_room(self.cache)
        step = own_step(self.language.model, self.cache) or self.next
        return greedy(first, self.mask, partial(select, self.cache), step, generation, base.ends, base.pad)

    def next(self, tokens: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        """The logits behind further tokens: a `Step` (decoder.py)."""
        hidden = self.language.hidden(mask, self.cache, input_ids=tokens)[:, -1]
        return self.language.model.get_output_embeddings()(hidden)


def _all_but_the_last(cache: DynamicCache, beams: int) -> DynamicCache:
    """The keys and values of each row once for each beam, without the last token: `generate` reads one token itself."""
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, :-1], layer.values[:, :, :-1]
    cache.batch_repeat_interleave(beams)
    return cache
