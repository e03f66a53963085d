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
    """The lower and upper ends, (m,) each, of a band that holds all estimates at once with probability `level`.

    estimates: (m,). draws: (m, B), from shared resamples. The band is estimate ± c · standard error, where c is the
    level's quantile over resamples of max_j |draw_j − estimate_j| / se_j (single-step max-T: Westfall and Young, 1993;
    Romano and Wolf, 2005; as a sup-t band Montiel Olea and Plagborg-Møller, 2019).
    images: the number of images resampled; with it, c becomes Student's quantile of the same tail. least: (m,), half
    widths of pointwise intervals of `level`, for estimates whose error resamples cannot know because too few images
    moved; 0 for the others. The band is at least that wide, grown by the ratio of c to the quantile of one estimate.
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
    """The lower and upper ends, (m,) each, of pointwise percentile intervals. draws: (m, B)."""
    if len(draws) == 0:
        return np.empty(0), np.empty(0)
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return low, high
