"""Budgets of a recommendation, as people type them."""

from __future__ import annotations

import re
from typing import NamedTuple

from blip2sweep.errors import UserError
from blip2sweep.recipe.size import RATIO_BITS


class Budget(NamedTuple):
    """The options of `recommend` as they were typed. ratio: see `parse_ratio`."""

    max_bytes: str | None = None
    max_drop: str | None = None
    ratio: str | None = None

    def __str__(self) -> str:
        return " ".join(f"--{name.replace('_', '-')} {v}" for name, v in self._asdict().items() if v)

    def bytes(self, params: float) -> int | None:
        """What the whole model may take. params: of the model without compression. None where nothing is said of it."""
        limits = [
            *([parse_bytes(self.max_bytes)] if self.max_bytes else []),
            *([int(params * RATIO_BITS / 8 / parse_ratio(self.ratio))] if self.ratio else []),
        ]
        return min(limits, default=None)

    def drop(self) -> float | None:
        return parse_drop(self.max_drop) if self.max_drop else None


POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_bytes(text: str) -> int:
    """`2GB`, `750 MB`, `123456` -> bytes, powers of ten; `2GiB` powers of 1024."""
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(?:([kmgt]?)b?|([kmgt])ib?)\s*", text.lower())
    if not found:
        raise UserError(f"--max-bytes {text}: not a size; right: 2GB, 1.5GiB or a number of bytes")
    number, decimal, binary = found.groups()
    return int(float(number) * (1024 ** POWERS[binary] if binary else 1000 ** POWERS[decimal or ""]))


def parse_ratio(text: str) -> float:
    """`3`, `3x` or `2.5` -> how many times smaller than the model at 16 bits a number."""
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*x?\s*", text.lower())
    if not found or not float(found[1]):
        raise UserError(f"--ratio {text}: not a ratio; right: 3, for a third of the model at 16 bits a number")
    return float(found[1])


def parse_drop(text: str) -> float:
    """`2%` or `0.02` -> share of the baseline, below 1."""
    found = re.fullmatch(r"\s*(\d*\.?\d+)\s*(%?)\s*", text)
    if not found:
        raise UserError(f"--max-drop {text}: not a share; right: 2% or 0.02")
    share = float(found[1]) / (100 if found[2] else 1)
    if share >= 1:
        meant = f"{found[1]}% or {float(found[1]) / 100:g}" if not found[2] and float(found[1]) < 100 else "2% or 0.02"
        raise UserError(f"--max-drop {text}: the whole baseline or more; right: {meant}")
    return share
