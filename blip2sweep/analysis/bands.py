"""Simultaneous bands and one-sided bounds from shared resamples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def max_t(estimates: Array, draws: Array, level: float = 0.95) -> tuple[Array, Array]:
    """A band that holds all (m,) estimates at once with probability `level`: estimate ± c · standard error.

    draws: (m, B), from shared resamples. c is the level's quantile over resamples of max_j |draw_j − estimate_j| / se_j
    (single-step max-T: Westfall and Young, 1993; Romano and Wolf, 2005; as a sup-t band Montiel Olea and
    Plagborg-Møller, 2019). Estimates that never move have a band of no width and do not count.
    """
    if len(estimates) == 0:
        return estimates, estimates
    errors = np.nanstd(draws, axis=1)
    moving = errors > 1e-12
    if not moving.any():
        return estimates.copy(), estimates.copy()
    centred = np.abs(draws[moving] - estimates[moving, None]) / errors[moving, None]
    c = float(np.nanquantile(np.nanmax(centred, axis=0), level))
    return estimates - c * errors, estimates + c * errors


def percentile(draws: Array, level: float = 0.95) -> tuple[Array, Array]:
    """Pointwise percentile intervals of (m, B) draws: (m,), (m,)."""
    if len(draws) == 0:
        return np.empty(0), np.empty(0)
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return low, high
