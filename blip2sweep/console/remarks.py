"""Warnings about damaged files that a command skips: one line on stderr, each printed once a process."""

from __future__ import annotations

from collections.abc import Sequence

from blip2sweep.console.printing import say

_said: set[str] = set()


def remark(text: str) -> None:
    """Print a warning, unless this process has printed it before."""
    if text not in _said:
        _said.add(text)
        say(f"warning: {text}", err=True)


def forget() -> None:
    """Allow every warning again, for the next command in the same process."""
    _said.clear()


def many(n: int, thing: str) -> str:
    """`1 cell`, `3 cells`."""
    return f"{n} {thing}{'s' * (n != 1)}"


def some(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c and 4 more`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
