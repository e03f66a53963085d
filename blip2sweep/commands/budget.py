"""Budgets of a recommendation, as people type them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from blip2sweep.errors import UserError
from blip2sweep.recipe.size import RATIO_BITS


class Budget(NamedTuple):
    """The options of `recommend` as they were typed. ratio: see `parse_ratio`. latency: see `parse_latency`."""

    max_bytes: str | None = None
    max_drop: str | None = None
    ratio: str | None = None
    latency: str | None = None

    def __str__(self) -> str:
        return " ".join(f"--{name.replace('_', '-')} {v}" for name, v in self._asdict().items() if v)

    def mistakes(self) -> list[str]:
        """What is wrong with the options, each in one sentence; empty where they can be read."""
        if not any(self):
            return [NO_BUDGET]
        readers = (parse_size, parse_drop, parse_ratio, parse_latency)
        return [
            why for read, text in zip(readers, self, strict=True) if text is not None and (why := _why_not(read, text))
        ]

    def bytes(self, params: float, stored: float | None = None) -> int | None:
        """What the whole model may take; None where nothing is said of it.

        params: of the model without compression. stored: its bytes, which a share of `--max-bytes` is of.
        """
        limits = [
            *([_bytes_of(self.max_bytes, stored)] if self.max_bytes else []),
            *([int(params * RATIO_BITS / 8 / parse_ratio(self.ratio))] if self.ratio else []),
        ]
        return min(limits, default=None)

    def drop(self) -> float | None:
        return parse_drop(self.max_drop) if self.max_drop else None

    def time(self) -> float | None:
        """The share of the baseline's time that one image may take."""
        return parse_latency(self.latency) if self.latency else None


NO_BUDGET = "recommend: no budget given; right: --max-bytes 2GB, --ratio 3, --max-drop 2%, --latency 0.8, or several"
SLOWEST = 10.0  # times the baseline, from which milliseconds were meant


def _why_not(read: Callable[[str], object], text: str) -> str | None:
    try:
        read(text)
    except UserError as error:
        return str(error)
    return None


POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def is_unit(word: str) -> bool:
    """Whether a word is a unit alone. Behind a number and a space a shell takes it for a word of its own."""
    return re.fullmatch(r"%|x|[kmgt]?i?b", word.lower()) is not None


def parse_bytes(text: str) -> int:
    """`2GB`, `750 MB`, `123456` -> bytes, powers of ten; `2GiB` powers of 1024."""
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(?:([kmgt]?)b?|([kmgt])ib?)\s*", text.lower())
    if not found:
        raise UserError(f"--max-bytes {text}: not a size; right: 2GB, 1.5GiB or a number of bytes")
    number, decimal, binary = found.groups()
    return int(float(number) * (1024 ** POWERS[binary] if binary else 1000 ** POWERS[decimal or ""]))


def parse_size(text: str) -> float:
    """`2GB` -> bytes, or `50%` -> a share of the original below 1, as a float."""
    found = re.fullmatch(r"\s*(\d*\.?\d+)\s*%\s*", text)
    if not found:
        return parse_bytes(text)
    if not 0 < float(found[1]) < 100:
        raise UserError(f"--max-bytes {text}: no share of the original; right: from 0 % to below 100 %, such as 50%")
    return float(found[1]) / 100


def _bytes_of(text: str, stored: float | None) -> int:
    size = parse_size(text)
    return int(size * stored) if stored is not None and text.strip().endswith("%") else int(size)


def parse_latency(text: str) -> float:
    """`0.8` or `80%` -> share of the baseline's time."""
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(%?)\s*", text)
    share = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < share < SLOWEST:
        raise UserError(f"--latency {text}: no share of the baseline's time; right: 0.8 or 80%")
    return share


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
