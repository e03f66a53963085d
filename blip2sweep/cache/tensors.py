"""Tensors kept by content key within byte budgets: on the device first, then in host memory.

Who knows which keys will be wanted says so with `expect`: then what is wanted latest goes first and what is never
wanted again is not kept at all. Without that the least recently used goes first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from blip2sweep.machine.memory import free_host_bytes, workers_on_gpu

SHARE_OF_HOST, SHARE_OF_DEVICE = 0.25, 0.4  # of the memory that is free when the model has been loaded
Value = tuple[Tensor, ...]


@dataclass
class _Entry:
    key: str  # what `expect` calls it; several entries (pieces of one thing) may have one key
    value: Value
    used: int


class _Tier:
    """One memory: entries by name, and their bytes."""

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
    """Values are tuples of tensors. `get` gives them on the device."""

    def __init__(self, device: torch.device, device_budget: int, host_budget: int) -> None:
        self.device = device
        on_device = [_Tier(device_budget)] if device.type != "cpu" else []
        self._tiers = [*on_device, _Tier(host_budget)]
        self._uses: dict[str, list[int]] | None = None
        self._now = -1
        self._clock = self._began = 0  # ticks at every use; where it stood when this step began

    def expect(self, wanted: Sequence[Collection[str]]) -> None:
        """wanted[i]: the keys that step i will look for."""
        self._uses = {}
        for step, keys in enumerate(wanted):
            for key in keys:
                self._uses.setdefault(key, []).append(step)

    def at(self, step: int) -> None:
        """Step `step` of `expect` begins; what no later one wants is let go."""
        self._now, self._began = step, self._clock
        for tier in self._tiers:
            for name in [
                n for n, e in tier.entries.items() if self._next(e.key, step - 1) == inf and self._uses is not None
            ]:
                tier.pop(name)

    def later(self, key: str) -> int:
        """How many steps after this one will look for `key` (0 where nothing is expected)."""
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
        """Let go of everything; what is expected stays."""
        for tier in self._tiers:
            for name in list(tier.entries):
                tier.pop(name)

    def put(self, name: str, value: Value, key: str | None = None) -> None:
        """Keep a value, unless everything that is kept is wanted sooner."""
        for tier in self._tiers:
            if name in tier.entries:
                tier.pop(name)
        self._clock += 1
        self._place(0, name, _Entry(key or name, value, self._clock))

    @property
    def bytes(self) -> int:
        return sum(tier.bytes for tier in self._tiers)

    def _place(self, level: int, name: str, entry: _Entry) -> None:
        """Into the tier at `level`, moving down what is wanted later than it; or itself further down."""
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
        """Whether what is kept is wanted sooner, or no later. Of the pieces of one thing the first ones then stay: to
        make room among them would lose each one just before the next step asks for it."""
        mine, its = self._wanted(known), self._wanted(new)
        return mine < its or mine == its < inf

    def _rank(self, entry: _Entry) -> tuple[float, int]:
        """The highest goes first: wanted latest, then used longest ago."""
        return self._wanted(entry), -entry.used

    def _wanted(self, entry: _Entry) -> float:
        """The next step that will look for an entry: this one, so long as it has not."""
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
    """(device, host) bytes that this worker's memos may use together; `limit` caps each."""
    host = int(free_host_bytes() * SHARE_OF_HOST)
    free = int(torch.cuda.mem_get_info(device)[0] * SHARE_OF_DEVICE) // workers_on_gpu() if device.type == "cuda" else 0
    return (free, host) if limit is None else (min(free, limit), min(host, limit))
