"""Budgets of a recommendation, as people type them."""

from __future__ import annotations

import re

from blip2sweep.errors import UserError

POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_bytes(text: str) -> int:
    """`2GB`, `750 MB`, `123456` -> bytes, powers of ten; `2GiB` powers of 1024."""
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(?:([kmgt]?)b?|([kmgt])ib?)\s*", text.lower())
    if not found:
        raise UserError(f"--max-bytes {text}: not a size; right: 2GB, 1.5GiB or a number of bytes")
    number, decimal, binary = found.groups()
    return int(float(number) * (1024 ** POWERS[binary] if binary else 1000 ** POWERS[decimal or ""]))


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
