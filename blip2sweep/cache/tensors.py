"""A store of tensors by content key within byte budgets: on the device first, then in host memory.

`expect` tells the store which keys each step will ask for. The store then removes first what is needed last, and keeps
nothing that no step needs. Without `expect` it removes the least recently used first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from blip2sweep.machine.memory import free_host_bytes, workers_on_gpu

SHARE_OF_HOST, SHARE_OF_DEVICE = 0.25, 0.4  # of the memory that is free after the model is loaded
Value = tuple[Tensor, ...]


@dataclass
class _Entry:
    key: str  # the key in `expect`; the chunks of one result share a key
    value: Value
    used: int


class _Tier:
    """One memory: its entries by name, and their bytes."""

    def __init__(self, budget: int) -> None:
        self.budget, self.bytes = budget, 0
        self.entries: dict[str, _Entry] = {}

    def add(self, name: str, entry: _Entry) -> None:
        self.entries[name] = entry
        self.bytes += size(entry.value)

    def pop(self, name: str) -> _Entry:
        entry = self.entries.pop(name)
        self.bytes -= size(entry.value)
        return entry


class Memo:
    """Tuples of tensors by name. `get` returns them on the device."""

    def __init__(self, device: torch.device, device_budget: int, host_budget: int) -> None:
        self.device = device
        on_device = [_Tier(device_budget)] if device.type != "cpu" else []
        self._tiers = [*on_device, _Tier(host_budget)]
        self._uses: dict[str, list[int]] | None = None
        self._now = -1
        self._clock = self._began = 0  # counts uses; its value at the begin of this step

    def expect(self, wanted: Sequence[Collection[str]]) -> None:
        """Set the steps to come. wanted[i]: the keys that step i will ask for."""
        self._uses = {}
        for step, keys in enumerate(wanted):
            for key in keys:
                self._uses.setdefault(key, []).append(step)

    def advance(self, step: int) -> None:
        """Begin step `step` of `expect`, and remove the entries that neither it nor a later step needs."""
        self._now, self._began = step, self._clock
        if self._uses is None:
            return
        for tier in self._tiers:
            for name in [n for n, e in tier.entries.items() if self._next(e.key, step - 1) == inf]:
                tier.pop(name)

    def needs_less(self, step: int, keys: Collection[str]) -> None:
        """Step `step` will not ask for these keys any more: what it wanted of them was made ahead."""
        for uses in ((self._uses or {}).get(key, []) for key in keys):
            if step in uses:
                uses.remove(step)

    def __contains__(self, name: str) -> bool:
        return any(name in tier.entries for tier in self._tiers)

    @property
    def room(self) -> int:
        """Bytes that can be kept besides what is there."""
        return sum(tier.budget - tier.bytes for tier in self._tiers)

    def remaining_uses(self, key: str) -> int:
        """The number of steps after this one that will ask for `key`. 0 without `expect`."""
        uses = (self._uses or {}).get(key, [])
        return len(uses) - bisect_right(uses, self._now)

    def get(self, name: str) -> Value | None:
        for tier in self._tiers:
            if (entry := tier.entries.get(name)) is not None:
                self._clock += 1
                entry.used = self._clock
                return tuple(x.to(self.device, non_blocking=True) for x in entry.value)
        return None

    def clear(self) -> None:
        """Remove every entry. The expected steps stay."""
        for tier in self._tiers:
            for name in list(tier.entries):
                tier.pop(name)

    def put(self, name: str, value: Value, key: str | None = None) -> None:
        """Keep a value, unless the store is full of entries needed sooner.

        key: the key in `expect`, if not the name.
        """
        for tier in self._tiers:
            if name in tier.entries:
                tier.pop(name)
        self._clock += 1
        self._place(0, name, _Entry(key or name, value, self._clock))

    @property
    def bytes(self) -> int:
        return sum(tier.bytes for tier in self._tiers)

    def _place(self, level: int, name: str, entry: _Entry) -> None:
        """Put an entry into the tier at `level`, or into a lower one.

        Entries that are needed later than it move one tier down to make room.
        """
        if level == len(self._tiers):
            return
        tier, need = self._tiers[level], size(entry.value)
        while tier.bytes + need > tier.budget:
            worst = max(tier.entries, key=lambda n: self._rank(tier.entries[n]), default=None)
            if need > tier.budget or worst is None or self._stays(tier.entries[worst], entry):
                self._place(level + 1, name, entry)
                return
            self._place(level + 1, worst, tier.pop(worst))
        tier.add(name, _down(entry) if level else entry)

    def _stays(self, known: _Entry, new: _Entry) -> bool:
        """Whether a kept entry has precedence over a new one: a step needs it sooner, or no later.

        The chunks of one result are needed by the same step, so the first ones stay. If a new chunk replaced an old
        one, each chunk would be gone when the step asks for it.
        """
        kept, other = self._wanted(known), self._wanted(new)
        return kept < other or kept == other < inf

    def _rank(self, entry: _Entry) -> tuple[float, int]:
        """The order of removal, the highest first: the entry needed last, then the one used longest ago."""
        return self._wanted(entry), -entry.used

    def _wanted(self, entry: _Entry) -> float:
        """The next step that will ask for an entry. It is this step until the entry is used in it."""
        return self._next(entry.key, self._now if entry.used > self._began else self._now - 1)

    def _next(self, key: str, now: int) -> float:
        uses = (self._uses or {}).get(key, [])
        i = bisect_right(uses, now)
        return uses[i] if i < len(uses) else inf


def _down(entry: _Entry) -> _Entry:
    return _Entry(entry.key, tuple(x.cpu() for x in entry.value), entry.used)


def size(value: Value) -> int:
    """Bytes of the tensors."""
    return sum(x.numel() * x.element_size() for x in value)


def budgets(device: torch.device, limit: int | None = None) -> tuple[int, int]:
    """(device, host): the bytes that all stores of this worker may use together.

    limit: the most for each of the two.
    """
    host = int(free_host_bytes() * SHARE_OF_HOST)
    free = int(torch.cuda.mem_get_info(device)[0] * SHARE_OF_DEVICE) // workers_on_gpu() if device.type == "cuda" else 0
    return (free, host) if limit is None else (min(free, limit), min(host, limit))
