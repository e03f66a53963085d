"""After how many images a cell will probably stop, so that it is not asked for the images before that look one look at a
time.

The forecast decides nothing: what was computed is judged look by look, on the first images alone
(`metrics/stopping.py`). One that is too short costs a round, one that is too long images that no result stands on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from blip2sweep.metrics.stopping import Rule, Sums, decide, kept

CAUTION = 1.0


def forecast(rule: Rule, sums: Sums, seen: int, places: Sequence[int], caution: float = CAUTION) -> int:
    """The first of `places` at which the rule will probably be satisfied; the last of them where none will be.

    sums: of the first `seen` images, of one cell. places: the looks to come, in images. The next one where nothing can
    be known yet of the baseline. caution: the images of a look count as so many times as they are; above 1 a look is
    reached for sooner, and the forecast is shorter.
    """
    if not (sums.b > 0 and np.isfinite(sums.x)):
        return places[0]
    reached = (n for n in places[:-1] if decide(rule, kept(scaled(sums, caution * n / seen))) is not None)
    return next(reached, places[-1])


def scaled(sums: Sums, by: float) -> Sums:
    """The sums over so many times as many images like these."""
    return Sums(*(s * by for s in sums))
