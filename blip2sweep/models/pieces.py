"""References are read in pieces of rows, each padded to the longest of its own: a batch is in the order of their lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from torch import Tensor

from blip2sweep.models.text import Ids, Likelihood, likelihoods, padded

ALL = slice(None)
ROWS = 128  # of a piece at least: smaller ones cost more passes than padding (docs/benchmarks.md)
NOTHING = Likelihood(0.0, 0)  # of a reference without tokens


def in_pieces(
    references: Sequence[Ids], pad: int, logits: Callable[[Sequence[Ids], slice], Tensor]
) -> list[Likelihood]:
    """The likelihood of each reference. It is that of one pass over all of them, to the last digits of a sum.

    logits: (references of some rows, these rows) -> (tokens of these references, vocabulary).
    """

    def read(rows: slice) -> list[Likelihood]:
        own = references[rows]
        return likelihoods(logits(own, rows), *padded(own, pad, left=False), own) if any(own) else [NOTHING] * len(own)

    return [x for rows in pieces([len(r) for r in references]) for x in read(rows)]


def pieces(lengths: Sequence[int]) -> Iterator[slice]:
    """Runs of `ROWS` rows, and of more where the next ones need no other padding."""
    starts = range(0, len(lengths), ROWS)
    for _, run in groupby(starts, lambda start: max(lengths[start : start + ROWS])):
        own = list(run)
        yield slice(own[0], min(own[-1] + ROWS, len(lengths)))
