"""CIDEr as pycocoevalcap computes it, with everything about the references computed once.

What pycocoevalcap calls CIDEr is CIDEr-D (Vedantam et al., 2015): clipped TF-IDF similarity of 1- to 4-grams with a
Gaussian penalty on the length difference, times ten.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from blip2sweep.metrics.metric import FloatArray
from blip2sweep.metrics.ngrams import Ngram, ngram_counts

SIGMA = 6.0


class _Vector(NamedTuple):
    weights: dict[Ngram, float]
    norms: FloatArray  # (4,), one an order
    length: int


class _Sample(NamedTuple):
    postings: dict[Ngram, list[tuple[int, float]]]  # n-gram -> (reference index, weight)
    norms: FloatArray  # (references, 4)
    lengths: FloatArray  # (references,)


class Cider:
    """The "cider" statistic, (n, 2): the score of a sample (0-10) and 1.

    references: n lists of tokenised captions; document frequencies are counted over these n samples and stay fixed.
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        counts = [[ngram_counts(text) for text in texts] for texts in references]
        self._log_samples = float(np.log(len(references)))
        self._log_frequency = _log_document_frequency(counts)
        self._samples = [self._sample(texts) for texts in counts]

    def __call__(self, pairs: Sequence[tuple[int, str]]) -> FloatArray:
        """The rows of (sample index, tokenised caption) pairs: (len(pairs), 2) float64."""
        return np.array([(self.score(index, caption), 1.0) for index, caption in pairs])

    def score(self, index: int, caption: str) -> float:
        """The score of one tokenised caption for sample ``index``."""
        sample, vector = self._samples[index], self._vector(ngram_counts(caption))
        overlap = np.zeros_like(sample.norms)
        for ngram, weight in vector.weights.items():
            for reference, other in sample.postings.get(ngram, ()):
                overlap[reference, len(ngram) - 1] += min(weight, other) * other
        scale = sample.norms * vector.norms
        cosine = np.divide(overlap, scale, out=overlap, where=scale != 0)
        penalty = np.exp(-((vector.length - sample.lengths) ** 2) / (2 * SIGMA**2))
        return float(10 * (cosine * penalty[:, None]).sum(axis=0).mean() / len(penalty))

    def _vector(self, counts: Counter[Ngram]) -> _Vector:
        weights = {
            ngram: count * (self._log_samples - self._log_frequency.get(ngram, 0.0)) for ngram, count in counts.items()
        }
        squares = [0.0, 0.0, 0.0, 0.0]
        for ngram, weight in weights.items():
            squares[len(ngram) - 1] += weight**2
        # The length in the penalty is the number of bigrams: so it is in pycocoevalcap.
        return _Vector(weights, np.sqrt(squares), sum(count for ngram, count in counts.items() if len(ngram) == 2))

    def _sample(self, texts: Sequence[Counter[Ngram]]) -> _Sample:
        vectors = [self._vector(counts) for counts in texts]
        postings: dict[Ngram, list[tuple[int, float]]] = defaultdict(list)
        for reference, vector in enumerate(vectors):
            for ngram, weight in vector.weights.items():
                postings[ngram].append((reference, weight))
        norms, lengths = [vector.norms for vector in vectors], [vector.length for vector in vectors]
        return _Sample(dict(postings), np.array(norms), np.array(lengths, dtype=np.float64))


def _log_document_frequency(counts: Sequence[Sequence[Counter[Ngram]]]) -> dict[Ngram, float]:
    """The logarithm of the number of samples in whose references an n-gram occurs."""
    frequency = Counter(ngram for texts in counts for ngram in set().union(*texts))
    return {ngram: float(np.log(count)) for ngram, count in frequency.items()}
