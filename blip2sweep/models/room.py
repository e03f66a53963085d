"""A cache that has room for tokens to be written. A token's keys and values are put behind those before it.

`DynamicLayer` of transformers copies all keys and values for each token. A copy for every ROOM tokens costs less, and
the tensors that attention sees stay nearly without gaps. With room for a whole text, attention on a CPU loses by the
gaps what the copies save (docs/decisions.md#sharing).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

ROOM = 4  # tokens
ALIGNED = 16  # bytes


class RoomyLayer(DynamicLayer):
    """The keys and values of a block, (batch, heads, tokens, width of a head), are views of tensors with more tokens.

    held: these tensors, once two tokens were added. The answer to a question is often one token, which needs no room.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        self.__dict__.update(layer.__dict__)
        self.held: list[Tensor] = []
        self.added = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add a token, or several as the base class does."""
        self.added += 1
        if key_states.shape[-2] != 1 or self.added == 1:
            self.held = []  # else its memory is not free for what is copied
            added: tuple[Tensor, Tensor] = super().update(key_states, value_states, *args, **kwargs)
            return added
        count, states = self.keys.shape[-2], (key_states, value_states)
        if self._has_room():
            for held, own in zip(self.held, states, strict=True):
                held[:, :, count] = own[:, :, 0]
        else:
            self.held = [_with_room(*pair) for pair in zip((self.keys, self.values), states, strict=True)]
        self.keys, self.values = (held[:, :, : count + 1] for held in self.held)
        return self.keys, self.values

    def keep(self, rows: Tensor) -> None:
        """Drop all other rows."""
        count, room = self.keys.shape[-2], self._has_room()
        kept = [x.index_select(0, rows) for x in (self.held if room else (self.keys, self.values))]
        self.held = kept if room else []
        self.keys, self.values = (x[:, :, :count] for x in kept)

    def _has_room(self) -> bool:
        """Whether keys and values are still views of what is held, and not all of it."""
        used = (self.keys, self.values)
        return bool(self.held) and all(
            x.data_ptr() == y.data_ptr() and len(x) == len(y) and x.shape[-2] > y.shape[-2]
            for x, y in zip(self.held, used, strict=True)
        )


def _with_room(used: Tensor, states: Tensor) -> Tensor:
    spare = states.new_empty(*states.shape[:2], ROOM - 1, states.shape[-1])
    return torch.cat([used, states, spare], -2)


def make_room(cache: Cache) -> None:
    """Give the layers of a cache on a CPU room. Attention there sums in the same order, whatever the strides, where what a token
    has in a head takes whole vectors. Otherwise the order follows where each head begins in memory.

    Another kind of cache stays as it is: BLIP's is two, one of which no token is added to.
    """
    if type(cache) is not DynamicCache:
        return
    cache.layers = [RoomyLayer(layer) if _plain(layer) else layer for layer in cache.layers]


def _plain(layer: Any) -> bool:
    return type(layer) is DynamicLayer and layer.is_initialized and all(map(_allows_room, (layer.keys, layer.values)))


def _allows_room(states: Tensor) -> bool:
    return states.device.type == "cpu" and states.shape[-1] * states.element_size() % ALIGNED == 0
