"""Keys and values as the inputs and outputs of a graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from blip2sweep.models.graphs import State

LENGTH = 3  # of the pasts in an example; tracing would take an empty one for no past


def states(layers: int, heads: int, width: int) -> tuple[State, ...]:
    """The keys and the values of each layer, in the order in which `cache_of` takes and `presents` gives them."""
    kinds = [(i, kind) for i in range(layers) for kind in ("keys", "values")]
    return tuple(State(f"past.{i}.{kind}", f"present.{i}.{kind}", (heads, 0, width)) for i, kind in kinds)


def example(state: State) -> Tensor:
    """A past of two rows with LENGTH tokens."""
    return torch.zeros(2, *(n or LENGTH for n in state.shape))


def cache_of(pasts: Sequence[Tensor]) -> DynamicCache:
    """A cache with these keys and values.

    Its layers are filled directly: `DynamicLayer.update` would begin with an empty tensor of one dimension, which
    converters refuse to join.
    """
    cache = DynamicCache()
    for keys, values in zip(pasts[::2], pasts[1::2], strict=True):
        layer = DynamicLayer()
        layer.keys, layer.values, layer.dtype, layer.device = keys, values, keys.dtype, keys.device
        layer.is_initialized = True
        cache.layers.append(layer)
    return cache


def presents(cache: DynamicCache) -> tuple[Tensor, ...]:
    """The keys and values of a cache."""
    return tuple(x for layer in cache.layers for x in (layer.keys, layer.values))
