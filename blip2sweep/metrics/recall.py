"""Recall of retrieval, image to text and text to image, from the scored pairs alone.

A query ranks the whole gallery, of which only its k best by contrast are scored; all others have `left_out`. The rank is
that of `numpy.argsort(scores, kind="stable")[::-1]`, as LAVIS ranks (lavis/tasks/retrieval.py, itm_eval; its argsort is
not stable, so that its ties fall as they may): of equal scores the one that is later in the file comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from blip2sweep.metrics.metric import FloatArray, Metric, quotient

Ints = NDArray[np.int64]
CUTS = (1, 5, 10)
VERSION = "lavis-itm-eval/1"


@dataclass(frozen=True)
class Pairs:
    """Scored pairs: queries, candidates and scores, three arrays of one length."""

    query: Ints
    candidate: Ints
    score: FloatArray

    @classmethod
    def of_rows(cls, candidates: Sequence[Sequence[int]], scores: Sequence[Sequence[float]]) -> Pairs:
        """Of lists for each query. Raises ValueError where a query has more candidates than scores, or fewer."""
        lengths = np.array([len(row) for row in candidates], dtype=np.int64)
        if [len(row) for row in scores] != lengths.tolist():
            raise ValueError("as many scores as candidates for each query, please")
        total = int(lengths.sum())
        return cls(
            np.repeat(np.arange(len(lengths)), lengths),
            np.fromiter(chain.from_iterable(candidates), np.int64, total),
            np.fromiter(chain.from_iterable(scores), np.float64, total),
        )

    @property
    def turned(self) -> Pairs:
        """The same pairs, asked by the candidates."""
        return Pairs(self.candidate, self.query, self.score)


def best_ranks(pairs: Pairs, first: Ints, last: Ints, gallery: int, left_out: float) -> Ints:
    """The rank (0 is best) of the best right candidate of each query, (queries,).

    first, last: the range of candidates, both included, that are right for each query. gallery: the number of
    candidates. left_out: the score of a candidate that was not scored.
    """
    query, candidate, score = pairs.query, pairs.candidate, pairs.score
    best, place = _best(pairs, first, last, left_out)
    later = candidate > place[query]
    ahead = (score > best[query]) | ((score == best[query]) & later)
    n = len(first)
    unscored = gallery - np.bincount(query, minlength=n)
    unscored_later = gallery - 1 - place - np.bincount(query[later], minlength=n)
    others = np.where(best < left_out, unscored, np.where(best == left_out, unscored_later, 0))
    ranks: Ints = np.bincount(query[ahead], minlength=n) + others
    return ranks


def _best(pairs: Pairs, first: Ints, last: Ints, left_out: float) -> tuple[FloatArray, Ints]:
    """The score and the place of each query's best right candidate; the later one of equals."""
    counts = last - first + 1
    query = np.repeat(np.arange(len(first)), counts)
    start = np.cumsum(counts) - counts  # where a query's right candidates begin in one list of all
    candidate = np.arange(len(query)) - np.repeat(start - first, counts)
    score = np.full(len(query), left_out)
    right = (pairs.candidate >= first[pairs.query]) & (pairs.candidate <= last[pairs.query])
    asked = pairs.query[right]
    score[start[asked] + pairs.candidate[right] - first[asked]] = pairs.score[right]
    best, place = np.full(len(first), -np.inf), np.full(len(first), -1, dtype=np.int64)
    np.maximum.at(best, query, score)
    top = score == best[query]
    np.maximum.at(place, query[top], candidate[top])
    return best, place


def recall_statistics(
    asked: Pairs, asking: Pairs, first: Ints, last: Ints, texts: int, left_out: float
) -> dict[str, FloatArray]:
    """``{"recall": (images, 8)}``: for each image whether a text of its own is among the first 1, 5 and 10, and 1; of its
    own texts, how many find it among the first 1, 5 and 10, and their number.

    asked: pairs of an image and its best texts. asking: pairs of a text and its best images. first, last: the texts of
    each image, both included. texts: the number of texts, also of images that are not here.
    """
    images = len(first)
    own = np.repeat(np.arange(images), last - first + 1)
    queries = np.concatenate([np.arange(a, b + 1) for a, b in zip(first, last, strict=True)] or [first])
    of_image = best_ranks(asked, first, last, texts, left_out)
    place = np.full(texts, -1)
    place[queries] = own
    of_text = best_ranks(asking, place, place, images, left_out)[queries]
    found = [of_image < cut for cut in CUTS]
    finding = [np.bincount(own, of_text < cut, images) for cut in CUTS]
    columns = [*found, np.ones(images), *finding, last - first + 1]
    return {"recall": np.column_stack(columns).astype(np.float64)}


def _mean(sums: FloatArray) -> FloatArray:
    """LAVIS's r_mean: the mean of the six recalls."""
    each = [quotient(start + i, start + 3)(sums) for start in (0, 4) for i in range(3)]
    return np.asarray(np.mean(each, axis=0))


def _metrics() -> Iterator[Metric]:
    yield Metric(
        "recall_mean", "recall", _mean, True, VERSION, label="mean recall", per_sample=True, of_output=False, order=10
    )  # fmt: skip
    for name, start, way in (("tr", 0, "image to text"), ("ir", 4, "text to image")):
        for i, cut in enumerate(CUTS):
            columns, order = (start + i, start + 3), 11 + start if cut == 1 else None
            yield Metric(
                f"{name}_at_{cut}", "recall", quotient(*columns), True, VERSION, columns, per_sample=True,
                label=f"{name.upper()}@{cut} ({way})", unit=f"{name.upper()}@{cut}", of_output=False, order=order,
            )  # fmt: skip


METRICS: tuple[Metric, ...] = tuple(_metrics())
