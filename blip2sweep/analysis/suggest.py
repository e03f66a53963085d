"""Which cells to run next: those whose results would teach the predictor the most about all the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from blip2sweep.analysis.predict import Predictor, fit

Array = NDArray[np.float64]
FIRST, ROUND = 10, 5


def suggest(predictor: Predictor, noise: Array, known: Sequence[int], n: int) -> list[int]:
    """The rows of `noise` (candidates, groups) to run next, best first; `known` rows are not suggested.

    Each pick reduces the posterior variance most, summed over all candidates (active learning Cohn: Cohn, 1996), given
    the picks before it. A candidate weighs r · (1 − r) + .05, r being the predicted share of the baseline: what is
    surely whole or surely broken teaches nothing.
    """
    covariance = predictor.covariance(noise)
    retained = np.clip(predictor(noise) / predictor.base, 0, 1)
    weight, floor = retained * (1 - retained) + 0.05, predictor.scales[2] + 1e-9
    taken, chosen = list(known), list[int]()
    for _ in range(min(n, len(noise) - len(set(taken)))):
        gain = (covariance**2) @ weight / (np.diag(covariance) + floor)
        gain[taken] = -1
        best = int(gain.argmax())
        covariance = covariance - np.outer(covariance[best], covariance[best]) / (covariance[best, best] + floor)
        chosen.append(best)
        taken.append(best)
    return chosen


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
