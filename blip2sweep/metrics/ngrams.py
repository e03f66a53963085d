"""Counting n-grams."""

from __future__ import annotations

from collections import Counter

Ngram = tuple[str, ...]


def ngram_counts(text: str, orders: int = 4) -> Counter[Ngram]:
    """How often each n-gram of 1 to ``orders`` words occurs in a tokenised text, shorter ones first."""
    words = text.split()
    return Counter(
        tuple(words[start : start + order]) for order in range(1, orders + 1) for start in range(len(words) - order + 1)
    )
