"""What modules that are traced (`Graph.module`) have in common: masks and caches that are made of tensors alone.

A mask is said with its rows and columns, so that no library makes one by the lengths that it happens to be traced with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from blip2sweep.models.dropped import hollow
from blip2sweep.models.graphs import State

# What is added to the score of a token that is not read. It is finite in float16 too: a row of padding reads nothing.
UNREAD = -65504.0


def added(read: Tensor) -> Tensor:
    """What is added to scores: 0 where a token is read. read: bool."""
    return (1.0 - read.to(torch.float32)) * UNREAD


def both_ways(attention_mask: Tensor) -> Tensor:
    """(rows, 1, 1, tokens) float32: every token reads all that the mask (rows, tokens) has."""
    return added(attention_mask[:, None, None] > 0)


def left_to_right(attention_mask: Tensor, new: int) -> Tensor:
    """(rows, 1, new, all tokens) float32: each of the last `new` tokens reads itself and those before it."""
    number = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    before = number[None] <= number[attention_mask.shape[1] - new :][:, None]
    return added(before[None, None] & (attention_mask[:, None, None] > 0))


def filled(pasts: Sequence[Tensor]) -> DynamicCache:
    """A cache of keys and values in turns. It is filled by hand: `update` begins with a tensor of one dimension."""
    cache = DynamicCache()
    for keys, values in zip(pasts[::2], pasts[1::2], strict=True):
        layer = DynamicLayer()
        layer.keys, layer.values, layer.is_initialized = keys, values, True
        layer.dtype, layer.device = keys.dtype, keys.device
        cache.layers.append(layer)
    return cache


def emptied(cache: DynamicCache) -> tuple[Tensor, ...]:
    """Keys and values in turns: the inverse of `filled`."""
    return tuple(x for layer in cache.layers for x in (layer.keys, layer.values))


def alive(blocks: nn.ModuleList) -> list[int]:
    """The numbers of the blocks that are not dropped, in their order: those that have keys and values."""
    return [i for i, block in enumerate(blocks) if not hollow(block)]


def states(blocks: int, heads: int, width: int) -> tuple[State, ...]:
    """The keys and values of blocks, in turns. width: of a head."""
    return tuple(
        State(f"past.{kind}.{i}", f"present.{kind}.{i}", (heads, 0, width))
        for i in range(blocks)
        for kind in ("key", "value")
    )


def chosen(hidden: Tensor, at: Tensor) -> Tensor:
    """(rows, n, width): the hidden states of the tokens `at` (rows, n) of each row."""
    return hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1]))
