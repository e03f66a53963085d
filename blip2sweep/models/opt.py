"""OPT as the language model behind pictures. It reads [pictures][padding][BOS prompt], from left to right.

Pictures and prompt are read once (`prefill`). References are scored and the text is written from there. Greedy decoding
is a loop of our own, which drops finished rows. Beams go through `generate` of transformers. Both write the same tokens
(tests/backends/torch/test_evaluate.py). Padding on the right would change the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache

from blip2sweep.models.text import Ids, LanguageModel, Likelihood, Text, beams, followed_by, likelihoods, padded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from transformers.modeling_outputs import ModelOutput

    from blip2sweep.models.ragged import Rows
    from blip2sweep.tasks.generation import Generation

# Ended rows are dropped when they are at least this share, because dropping copies the cache of the others.
ENDED_SHARE = 0.125


def tokenizer_mistakes(tokenizer: PreTrainedTokenizerBase, ids: Ids) -> Iterator[str]:
    """The mistakes of a tokenizer for OPT. ids: the tokens that it makes of a text."""
    if ids[:1] != [tokenizer.bos_token_id]:
        yield f"the tokenizer sets no BOS token ({tokenizer.bos_token_id}) before a text, as OPT was trained with"


class Opt:
    """A `Language` (blip2sweep/models/architecture.py)."""

    def __init__(self, base: LanguageModel) -> None:
        self.base, self.model = base, base.model

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

    @torch.inference_mode()
    def prefill(self, pictures: Rows, prompts: Sequence[Ids]) -> Prefilled:
        embeds, mask = self.base.inputs.embed(pictures, prompts, left=True)
        cache = DynamicCache()
        hidden = self.hidden(mask, cache, inputs_embeds=embeds)[:, -1]
        return Prefilled(self, embeds, mask, cache, hidden)

    def hidden(self, mask: Tensor, cache: DynamicCache, **tokens: Tensor) -> Tensor:
        """The last hidden state (batch, new tokens, width) after further tokens. Their keys and values join the cache.

        It is on the mask's device: with a device_map the last block may be on another one than the first.
        """
        out = self.model.model(attention_mask=mask, past_key_values=cache, use_cache=True, **tokens)
        return out.last_hidden_state.to(mask.device)

    def select(self, cache: DynamicCache, rows: Tensor) -> None:
        """Keep only these rows in the cache."""
        select(cache, rows)

    def row_bytes(self, generation: Generation) -> int:
        return self.base.row_bytes(self.model.config.num_hidden_layers, generation)

    # ---- one pass over rows of one length

    def as_read(self, prompt: Ids, reference: Ids) -> Ids:
        """Prompt and reference without its end."""
        return followed_by(prompt, reference[:-1])

    def pictured(self, text: Ids, tokens: int) -> list[bool]:
        return self.base.inputs.pictured(text, tokens)

    @torch.inference_mode()
    def read(self, pictures: Rows | None, texts: Sequence[Ids], references: Sequence[Ids]) -> ModelOutput:
        embeds, mask = self.base.inputs.embed(pictures, texts, left=True)
        return self.model.model(inputs_embeds=embeds, attention_mask=mask, use_cache=False)

    def logits(self, output: ModelOutput) -> Tensor:
        return self.model.get_output_embeddings()(output.last_hidden_state)

    def in_stream(self, path: str) -> bool:
        """Whether it is a layer of the language model: a Q-Former in its stage reads queries and a question."""
        return path.startswith(f"{self.base.path}.")


@dataclass(eq=False)
class Prefilled:
    """Pictures and prompts that were read. cache: keys and values. hidden (batch, width): at the last token."""

    language: Opt
    embeds: Tensor
    mask: Tensor
    cache: DynamicCache
    hidden: Tensor

    @torch.inference_mode()
    def likelihood(self, references: Sequence[Ids]) -> list[Likelihood]:
        ids, reference_mask = padded(references, self.language.base.tokenizer.pad_token_id, left=False)
        logits = self._logits(ids.to(self.mask.device), reference_mask.to(self.mask.device))
        return likelihoods(logits, ids, reference_mask, references)

    def _logits(self, ids: Tensor, reference_mask: Tensor) -> Tensor:
        """Logits (tokens of all references, vocabulary).

        Nothing follows a reference, so padding may stand on the right.
        """
        hidden = self.hidden[:, None]
        if ids.shape[1] > 1:
            before = [(layer.keys, layer.values) for layer in self.cache.layers]
            mask = torch.cat([self.mask, reference_mask[:, 1:]], 1)
            hidden = torch.cat([hidden, self.language.hidden(mask, self.cache, input_ids=ids[:, :-1])], 1)
            for layer, (keys, values) in zip(self.cache.layers, before, strict=True):
                layer.keys, layer.values = keys, values  # the text begins where the prompt ends, not after a reference
        return self.language.model.get_output_embeddings()(hidden[reference_mask.bool()])

    @torch.inference_mode()
    def generate(self, generation: Generation) -> list[Text]:
        rows = self.greedy(generation) if generation.num_beams == 1 else self._by_beams(generation)
        return self.language.base.texts(rows)

    def _by_beams(self, generation: Generation) -> list[Ids]:
        """Text through `generate` of transformers. The beams of a row share the prompt's keys and values."""
        out = self.language.model.generate(
            attention_mask=self.mask, do_sample=False, pad_token_id=self.language.base.tokenizer.pad_token_id,
            inputs_embeds=self.embeds, past_key_values=_all_but_the_last(self.cache, generation.num_beams),
            **beams(generation),
        )  # fmt: skip
        return out.tolist()

    @torch.inference_mode()
    def greedy(self, generation: Generation) -> list[Ids]:
        """The likeliest token each time, until EOS or max_new_tokens. Token ids (batch, max_new_tokens), padded."""
        mask, cache, hidden, base = self.mask, self.cache, self.hidden, self.language.base
        pad, stops = base.tokenizer.pad_token_id, torch.tensor(base.ends, device=hidden.device)
        written = torch.full((len(mask), generation.max_new_tokens), pad, device=hidden.device)
        rows = torch.arange(len(mask), device=hidden.device)  # the row of `written` that each row belongs to
        alive = torch.ones(len(mask), dtype=torch.bool, device=hidden.device)
        for step in range(generation.max_new_tokens):
            tokens = self._likeliest(hidden, stops if step < (generation.min_new_tokens or 0) else None)
            tokens = torch.where(alive, tokens, pad)
            written[rows, step] = tokens
            alive &= ~torch.isin(tokens, stops)
            left = int(alive.sum())
            if left == 0 or step + 1 == generation.max_new_tokens:
                break
            if left <= (1 - ENDED_SHARE) * len(rows):
                stay = alive.nonzero()[:, 0]
                rows, tokens, mask, alive = rows[stay], tokens[stay], mask[stay], alive[stay]
                self.language.select(cache, stay)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            hidden = self.language.hidden(mask, cache, input_ids=tokens[:, None])[:, -1]
        return written.tolist()

    def _likeliest(self, hidden: Tensor, forbidden: Tensor | None) -> Tensor:
        """(batch,) token ids on the device of `hidden`.

        They are chosen in float32, as `generate` of transformers does.
        """
        logits = self.language.model.get_output_embeddings()(hidden).float()
        if forbidden is not None:
            logits[:, forbidden.to(logits.device)] = -torch.inf
        return logits.argmax(-1).to(hidden.device)


def _all_but_the_last(cache: DynamicCache, beams: int) -> DynamicCache:
    """The keys and values of each row once for each beam, without the last token: `generate` reads one token itself."""
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, :-1], layer.values[:, :, :-1]
    cache.batch_repeat_interleave(beams)
    return cache


def select(cache: DynamicCache, rows: Tensor) -> None:
    """Keep only these rows in the cache. The keys and values of a layer are on the device of its block."""
    for layer in cache.layers:
        own = rows.to(layer.keys.device)
        layer.keys, layer.values = layer.keys[own], layer.values[own]
