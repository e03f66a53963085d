"""Greedy decoding of a decoder-only language model whose prompts were read. Finished rows are dropped.

It writes the same tokens as `generate` of transformers (tests/backends/torch/test_evaluate.py, tests/models).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blip2sweep.models.pieces import ALL
from blip2sweep.models.room import RoomyLayer
from blip2sweep.models.text import Ids

if TYPE_CHECKING:
    from transformers import DynamicCache

    from blip2sweep.tasks.generation import Generation

# Ended rows are dropped when they are at least this share, because dropping copies the cache of the others.
ENDED_SHARE = 0.125

# (tokens (rows, 1), mask (rows, all tokens), number of each row in the batch that was read) -> logits (rows, vocabulary)
Step = Callable[[Tensor, Tensor, Tensor], Tensor]
Keep = Callable[[Tensor], None]  # (rows (n,) of those that are left)


@torch.inference_mode()
def greedy(
    first: Tensor, mask: Tensor, keep: Keep, step: Step, generation: Generation, ends: Sequence[int], pad: int
) -> list[Ids]:
    """The likeliest token each time, until an end or max_new_tokens. Token ids (batch, max_new_tokens), padded.

    first: logits (batch, vocabulary) behind the prompts. mask: of the prompts (batch, tokens) int64. keep: drops
    all other rows from the keys and values, to which `step` adds those of the tokens it gets. ends: the tokens that end
    a text.
    """
    stops, logits = torch.tensor(ends, device=mask.device), first
    written = torch.full((len(mask), generation.max_new_tokens), pad, device=mask.device)
    rows = torch.arange(len(mask), device=mask.device)  # the row of `written` that each row belongs to
    alive = torch.ones(len(mask), dtype=torch.bool, device=mask.device)
    for i in range(generation.max_new_tokens):
        tokens = _likeliest(logits, stops if i < (generation.min_new_tokens or 0) else None).to(mask.device)
        tokens = torch.where(alive, tokens, pad)
        written[rows, i] = tokens
        alive &= ~torch.isin(tokens, stops)
        left = int(alive.sum())
        if left == 0 or i + 1 == generation.max_new_tokens:
            break
        if left <= (1 - ENDED_SHARE) * len(rows):
            stay = alive.nonzero()[:, 0]
            rows, tokens, mask, alive = rows[stay], tokens[stay], mask[stay], alive[stay]
            keep(stay)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        logits = step(tokens[:, None], mask, rows)
    return written.tolist()


def _likeliest(logits: Tensor, forbidden: Tensor | None) -> Tensor:
    """(batch,) token ids. They are chosen in float32, as `generate` of transformers does."""
    logits = logits.float()
    if forbidden is not None:
        logits[:, forbidden.to(logits.device)] = -torch.inf
    return logits.argmax(-1)


def select(cache: DynamicCache, rows: Tensor) -> None:
    """Keep only these rows in the cache. The keys and values of a layer are on the device of its block."""
    for layer in cache.layers:
        own = rows.to(layer.keys.device)
        if isinstance(layer, RoomyLayer):
            layer.keep(own)
            continue
        layer.keys, layer.values = layer.keys.index_select(0, own), layer.values.index_select(0, own)


def rows_of(cache: DynamicCache, rows: Tensor) -> DynamicCache:
    """Another cache, of these rows, of which some may be the same."""
    found = copy(cache)
    found.layers = [copy(layer) for layer in cache.layers]
    select(found, rows)
    return found


@contextmanager
def unchanged(cache: DynamicCache, rows: slice = ALL) -> Iterator[None]:
    """Inside, the cache has these rows alone. Afterwards it is as before: what was read inside is forgotten."""
    before = [(layer.keys, layer.values) for layer in cache.layers]
    for layer, (keys, values) in zip(cache.layers, before, strict=True):
        layer.keys, layer.values = keys[rows], values[rows]  # views, which nothing is written into
    yield
    for layer, (keys, values) in zip(cache.layers, before, strict=True):
        layer.keys, layer.values = keys, values
