"""After how many images a cell will probably stop, so that it is asked for the images up to there at once.

The forecast decides nothing: what was computed is judged look by look, on the first images alone (`metrics/stopping.py`). One
that is too short costs a round, one that is too long costs images on which no result stands. It is the rule itself, asked of
as many more images like those seen. CAUTION and DRIFT were chosen on the published study (docs/stopping.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from blip2sweep.metrics.metric import FloatArray
from blip2sweep.metrics.stopping import Ratio, Rule, Sums, decide, interval

CAUTION = 1.2  # as so many images each of those to come counts: spreads that were seen too large are not rare
DRIFT = 0.3  # by how much of its half width a value may still move towards where the rule is satisfied
Flags = NDArray[np.bool_]


def forecast(rule: Rule, sums: Sums, seen: int, coming: Sequence[int]) -> int:
    """The first of the looks to come at which the rule may well be satisfied; the last of them where none will be.

    sums: of the first `seen` images of one cell. coming: in images. The next look where nothing is known of the baseline.
    """
    if not (sums.b > 0 and np.isfinite(sums.x)):
        return coming[0]
    return next((n for n in coming[:-1] if likely(rule, sums, seen, n)), coming[-1])


def likely(rule: Rule, sums: Sums, seen: int, look: int, caution: float = CAUTION, drift: float = DRIFT) -> Flags:
    """Whether the rule may well be satisfied after `look` images, in the shape of the sums, which are of `seen` images."""
    low, high = interval(sums)
    move = drift * (high - low) / 2 * np.sqrt(1 - seen / look)  # what is known of the first images stays
    unknown = ~np.isfinite(move)
    low, high = interval(Sums(*(s * (caution * look / seen) for s in sums)))
    nearer, farther = (
        satisfied(rule, low + m, high + m) for m in (np.where(unknown, 0, move), np.where(unknown, 0, -move))
    )
    return nearer | farther | unknown


def satisfied(rule: Rule, low: FloatArray, high: FloatArray) -> Flags:
    """Whether intervals with these ends satisfy the rule, in their shape."""
    ends = zip(np.ravel(low), np.ravel(high), strict=True)
    found = [decide(rule, Ratio(np.nan, *both)) is not None for both in ends]
    return np.array(found, dtype=np.bool_).reshape(np.shape(low))
