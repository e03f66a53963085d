"""BLEU's sufficient statistics (Papineni et al., 2002), as pycocoevalcap counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from blip2sweep.metrics.metric import FloatArray
from blip2sweep.metrics.ngrams import Ngram, ngram_counts


class Bleu:
    """The "bleu" statistic, (n, 10): matched n-grams 1-4, n-grams 1-4, length, closest reference length (in words).

    references: n lists of tokenised captions.
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        self._lengths = [[len(text.split()) for text in texts] for texts in references]
        self._most = [_maximum(ngram_counts(text) for text in texts) for texts in references]

    def __call__(self, pairs: Sequence[tuple[int, str]]) -> FloatArray:
        """The rows of (sample index, tokenised caption) pairs: (len(pairs), 10) float64."""
        return np.array([self._row(index, caption) for index, caption in pairs], dtype=np.float64)

    def _row(self, index: int, caption: str) -> list[int]:
        length = len(caption.split())
        matches = [0, 0, 0, 0]
        for ngram, count in ngram_counts(caption).items():
            matches[len(ngram) - 1] += min(count, self._most[index][ngram])
        candidates = [max(0, length - shorter) for shorter in range(4)]
        # Of two equally close lengths the shorter one, as pycocoevalcap's option "closest".
        closest = min((abs(other - length), other) for other in self._lengths[index])[1]
        return [*matches, *candidates, length, closest]


def _maximum(counters: Iterable[Counter[Ngram]]) -> Counter[Ngram]:
    most: Counter[Ngram] = Counter()
    for counter in counters:
        most |= counter
    return most
