"""Simultaneous bands and one-sided bounds from shared resamples."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from blip2sweep.metrics import student_factor

Array = NDArray[np.float64]


def max_t(
    estimates: Array, draws: Array, level: float = 0.95, images: int | None = None, least: Array | None = None
) -> tuple[Array, Array]:
    """A band that holds all (m,) estimates at once with probability `level`: estimate ± c · standard error.

    draws: (m, B), from shared resamples. c is the level's quantile over resamples of max_j |draw_j − estimate_j| / se_j
    (single-step max-T: Westfall and Young, 1993; Romano and Wolf, 2005; as a sup-t band Montiel Olea and
    Plagborg-Møller, 2019). images: how many were resampled; c then is Student's quantile of the same tail. least: (m,) half
    widths of pointwise intervals of `level`, for estimates that too few images moved for resamples to know their error, else
    0: a band is no narrower than these, grown as c grows over one estimate's.
    """
    if len(estimates) == 0:
        return estimates, estimates
    errors, single = np.nanstd(draws, axis=1), NormalDist().inv_cdf((1 + level) / 2)
    moving, c = errors > 1e-12, single
    if moving.any():
        centred = np.abs(draws[moving] - estimates[moving, None]) / errors[moving, None]
        c = float(np.nanquantile(np.nanmax(centred, axis=0), level))
    half = c * errors * (student_factor(c, images) if images else 1.0)
    if least is not None:
        half = np.maximum(half, least * max(1.0, c / single))
    return estimates - half, estimates + half


def percentile(draws: Array, level: float = 0.95) -> tuple[Array, Array]:
    """Pointwise percentile intervals of (m, B) draws: (m,), (m,)."""
    if len(draws) == 0:
        return np.empty(0), np.empty(0)
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return low, high
