"""Query features + prompt -> text, and the likelihood of references, from one reading of picture and prompt.

The language model reads picture and prompt once (`begin`): references are scored and the text is written from there.
Greedy decoding with OPT is a loop of our own, which drops finished rows; beams, and T5, go through `generate` of
transformers. Both write the same tokens (tests/backends/torch/test_evaluate.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from blip2sweep.models.blip2.language import Ids, Likelihood, Text, ends, inputs, padded
from blip2sweep.models.load import Loaded
from blip2sweep.tasks.generation import Generation

# Rows that have ended are dropped when they are at least this share: dropping copies the cache of those that stay.
ENDED_SHARE = 0.125


@dataclass(eq=False)
class Begun:
    """Picture and prompt read. OPT: `cache` of keys and values, `hidden` (batch, width) at the last token; T5: `encoded`."""

    loaded: Loaded
    embeds: Tensor
    mask: Tensor
    cache: Any = None
    hidden: Tensor | None = None
    encoded: Any = None


@torch.inference_mode()
def begin(loaded: Loaded, query_features: Tensor, prompts: Sequence[Ids]) -> Begun:
    """query_features (batch, num_query_tokens, Q-Former width) and as many prompts."""
    embeds, mask = inputs(loaded, query_features, prompts)
    language_model = loaded.model.language_model
    if loaded.family == "t5":
        encoded = language_model.get_encoder()(inputs_embeds=embeds, attention_mask=mask)
        return Begun(loaded, embeds, mask, encoded=encoded)
    cache = DynamicCache()
    hidden = _hidden(loaded, mask, cache, inputs_embeds=embeds)[:, -1]
    return Begun(loaded, embeds, mask, cache, hidden)


def _hidden(loaded: Loaded, mask: Tensor, cache: DynamicCache, **tokens: Tensor) -> Tensor:
    """The last hidden state (batch, new tokens, width) of OPT after more tokens, whose keys and values join the cache.

    On the mask's device: with a device_map the last block may be on another one than the first.
    """
    model = loaded.model.language_model.model
    out = model(attention_mask=mask, past_key_values=cache, use_cache=True, **tokens)
    return out.last_hidden_state.to(mask.device)


# ---- likelihood


@torch.inference_mode()
def likelihood(begun: Begun, references: Sequence[Ids]) -> list[Likelihood]:
    """The likelihood of one reference (ids with EOS; may be empty) a row, given picture and prompt."""
    ids, kept = padded(references, begun.loaded.processor.tokenizer.pad_token_id, left=False)
    score = _opt_logits if begun.loaded.family == "opt" else _t5_logits
    logits = score(begun, ids.to(begun.mask.device), kept.to(begun.mask.device))
    labels = ids[kept.bool()].to(logits.device)
    losses = cross_entropy(logits.float(), labels, reduction="none").double()
    lengths = [len(row) for row in references]
    return [Likelihood(float(part.sum()), len(part)) for part in losses.cpu().split(lengths)]


def _opt_logits(begun: Begun, ids: Tensor, kept: Tensor) -> Tensor:
    """Logits (tokens of all references, vocabulary). Nothing follows a reference, so padding may stand on the right."""
    assert begun.hidden is not None
    hidden = begun.hidden[:, None]
    if ids.shape[1] > 1:
        before = [(layer.keys, layer.values) for layer in begun.cache.layers]
        mask = torch.cat([begun.mask, kept[:, 1:]], 1)
        hidden = torch.cat([hidden, _hidden(begun.loaded, mask, begun.cache, input_ids=ids[:, :-1])], 1)
        for layer, (keys, values) in zip(begun.cache.layers, before, strict=True):
            layer.keys, layer.values = keys, values  # the text begins where the prompt ends, not after a reference
    return begun.loaded.model.language_model.get_output_embeddings()(hidden[kept.bool()])


def _t5_logits(begun: Begun, ids: Tensor, kept: Tensor) -> Tensor:
    """Logits (tokens of all references, vocabulary); the decoder reads the references shifted right."""
    model = begun.loaded.model.language_model
    shifted = model.prepare_decoder_input_ids_from_labels(ids)
    logits = model(encoder_outputs=begun.encoded, attention_mask=begun.mask, decoder_input_ids=shifted).logits
    return logits[kept.bool().to(logits.device)]


# ---- text


@torch.inference_mode()
def generate(begun: Begun, generation: Generation) -> list[Text]:
    """One text a row, deterministically. The cache of `begun` is used up."""
    loaded, tokenizer = begun.loaded, begun.loaded.processor.tokenizer
    if loaded.family == "opt" and generation.num_beams == 1:
        rows = greedy(begun, generation)
    else:
        rows = _transformers(begun, generation)
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
    return [
        Text(text.strip(), _length(row, ends(loaded), tokenizer.pad_token_id))
        for text, row in zip(texts, rows, strict=True)
    ]


def _length(row: Ids, stops: Sequence[int], pad: int) -> int:
    """Tokens before EOS; a row without one ran to the limit (or is padded to a longer beam)."""
    end = next((i for i, x in enumerate(row) if x in stops), None)
    if end is not None:
        return end
    return len(row) - next((i for i, x in enumerate(reversed(row)) if x != pad), len(row))


def _transformers(begun: Begun, generation: Generation) -> list[Ids]:
    """Through `generate`, with picture and prompt read already. Beams of OPT share the prompt's keys and values."""
    settings: dict[str, Any] = {"num_beams": generation.num_beams, "max_new_tokens": generation.max_new_tokens}
    settings |= {k: v for k in ("min_new_tokens", "length_penalty") if (v := getattr(generation, k)) is not None}
    if begun.loaded.family == "t5":
        settings["encoder_outputs"] = begun.encoded
    else:
        settings |= {
            "inputs_embeds": begun.embeds,
            "past_key_values": _all_but_the_last(begun.cache, generation.num_beams),
        }
    out = begun.loaded.model.language_model.generate(
        attention_mask=begun.mask,
        do_sample=False,
        pad_token_id=begun.loaded.processor.tokenizer.pad_token_id,
        **settings,
    )
    return out.tolist() if begun.loaded.family == "opt" else out[:, 1:].tolist()  # T5's begin with the start token


def _all_but_the_last(cache: DynamicCache, beams: int) -> DynamicCache:
    """Each row's keys and values once a beam, without those of the last token: `generate` wants to read one itself."""
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, :-1], layer.values[:, :, :-1]
    cache.batch_repeat_interleave(beams)
    return cache


@torch.inference_mode()
def greedy(begun: Begun, generation: Generation) -> list[Ids]:
    """The likeliest token each time, until EOS or max_new_tokens: token ids (batch, max_new_tokens), padded."""
    assert begun.hidden is not None
    loaded, mask, cache, hidden = begun.loaded, begun.mask, begun.cache, begun.hidden
    pad, stops = loaded.processor.tokenizer.pad_token_id, torch.tensor(ends(loaded), device=hidden.device)
    written = torch.full((len(mask), generation.max_new_tokens), pad, device=hidden.device)
    rows = torch.arange(len(mask), device=hidden.device)  # where the rows in hand belong
    alive = torch.ones(len(mask), dtype=torch.bool, device=hidden.device)
    for step in range(generation.max_new_tokens):
        tokens = _likeliest(loaded, hidden, stops if step < (generation.min_new_tokens or 0) else None)
        tokens = torch.where(alive, tokens, pad)
        written[rows, step] = tokens
        alive &= ~torch.isin(tokens, stops)
        left = int(alive.sum())
        if left == 0 or step + 1 == generation.max_new_tokens:
            break
        if left <= (1 - ENDED_SHARE) * len(rows):
            stay = alive.nonzero()[:, 0]
            rows, tokens, mask, alive = rows[stay], tokens[stay], mask[stay], alive[stay]
            _select(cache, stay)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        hidden = _hidden(loaded, mask, cache, input_ids=tokens[:, None])[:, -1]
    return written.tolist()


def _select(cache: DynamicCache, rows: Tensor) -> None:
    """Leave these rows alone in the cache; each layer's keys and values are where its block is."""
    for layer in cache.layers:
        own = rows.to(layer.keys.device)
        layer.keys, layer.values = layer.keys[own], layer.values[own]


def _likeliest(loaded: Loaded, hidden: Tensor, forbidden: Tensor | None) -> Tensor:
    """(batch,) token ids, where `hidden` is; as `generate` of transformers, chosen in float32."""
    logits = loaded.model.language_model.get_output_embeddings()(hidden).float()
    if forbidden is not None:
        logits[:, forbidden.to(logits.device)] = -torch.inf
    return logits.argmax(-1).to(hidden.device)
