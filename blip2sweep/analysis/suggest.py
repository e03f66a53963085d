"""Which cells to run next: those whose results would teach the predictor the most about all the others, per second."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from blip2sweep.analysis.predict import Predictor, fit
from blip2sweep.metrics.stopping import BELOW
from blip2sweep.metrics.stopping import FIRST as FIRST_LOOK

Array = NDArray[np.float64]
FIRST, ROUND = 10, 5
QUANTILE = 2.81  # of the normal distribution, two-sided 99.5 %: the level of a look


def suggest(
    predictor: Predictor,
    noise: Array,
    known: Sequence[int],
    n: int,
    seconds: Array | None = None,
    weight: Array | None = None,
) -> list[int]:
    """The rows of `noise` (candidates, groups) to run next, best first; `known` rows are not suggested.

    Each pick reduces the posterior variance most for each second that it takes, summed over all candidates (active
    learning Cohn: Cohn, 1996), given the picks before it. seconds: that each candidate is expected to take,
    (candidates,); None: all take the same. weight: how much a candidate counts, (candidates,); by default r · (1 − r) +
    .05, r being the predicted share of the baseline: what is surely whole or surely broken teaches nothing.
    """
    covariance, cost = predictor.covariance(noise), np.ones(len(noise)) if seconds is None else seconds
    weight, floor = weights_by_share(predictor, noise) if weight is None else weight, predictor.scales[2] + 1e-9
    taken, chosen = list(known), list[int]()
    for _ in range(min(n, len(noise) - len(set(taken)))):
        with np.errstate(divide="ignore", invalid="ignore"):  # what takes no time is worth it, if it teaches anything
            gain = np.nan_to_num((covariance**2) @ weight / (np.diag(covariance) + floor) / cost, posinf=np.inf)
        gain[taken] = -1
        best = int(gain.argmax())
        covariance = covariance - np.outer(covariance[best], covariance[best]) / (covariance[best, best] + floor)
        chosen.append(best)
        taken.append(best)
    return chosen


def weights_by_share(predictor: Predictor, noise: Array) -> Array:
    """How much each candidate counts by what it is predicted to keep, (candidates,)."""
    kept = retained(predictor, noise)
    return kept * (1 - kept) + 0.05


def retained(predictor: Predictor, noise: Array) -> Array:
    """The share of the baseline that each candidate is predicted to keep, from 0 to 1, (candidates,)."""
    return np.clip(predictor(noise) / predictor.base, 0, 1)


def images_to_see(kept: Array, images: int, half_width: float) -> Array:
    """About how many of `images` images a cell sees until it is known to ± half_width, from what it keeps, (cells,).

    As if each image were either kept whole or lost: then n images know a share to z √(kept (1 − kept) / n). Less than
    half of the baseline is told by the first look.
    """
    needed = kept * (1 - kept) * (QUANTILE / half_width) ** 2
    return np.clip(np.where(kept < BELOW, 0.0, needed), min(FIRST_LOOK, images), images)


def design(
    noise: Array, families: Sequence[str], base: float, run: Callable[[int], float], n: int, seed: int = 0
) -> list[int]:
    """The rows of n cells that a study from nothing would run: a few at random, then rounds of `suggest`.

    run: gives the metric of a row. Each round fits on the results so far.
    """
    first = np.random.default_rng(seed).choice(len(noise), min(FIRST, n), replace=False)
    results = {int(i): run(int(i)) for i in first}
    while len(results) < n:
        chosen = list(results)
        predictor = fit(noise[chosen], np.array(list(results.values())), base, families)
        results |= {i: run(i) for i in suggest(predictor, noise, chosen, min(ROUND, n - len(results)))}
    return list(results)
