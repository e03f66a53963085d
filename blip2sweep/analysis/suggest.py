"""Which cells to run next: those whose results would teach the predictor the most about all the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from blip2sweep.analysis.predict import Predictor, fit

Array = NDArray[np.float64]
FIRST, ROUND = 10, 5


def suggest(predictor: Predictor, noise: Array, known: Sequence[int], n: int) -> list[int]:
    """Rows of `noise` (candidates, atoms) to run next, best first; `known` rows are not suggested.

    Greedy reduction of the posterior variance summed over all candidates (active learning Cohn: Cohn, 1996), each weighted
    by kept · (1 − kept) + .05: what is surely whole or surely broken teaches nothing. Later picks know of earlier ones.
    """
    covariance = predictor.covariance(noise)
    kept = np.clip(predictor(noise) / predictor.base, 0, 1)
    weight, floor = kept * (1 - kept) + 0.05, predictor.scales[2] + 1e-9
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
    noise: Array, groups: Sequence[str], base: float, run: Callable[[int], float], n: int, seed: int = 0
) -> list[int]:
    """Choose n cells from nothing: a few at random, then rounds of `suggest`, each fitted on what `run` has given."""
    first = np.random.default_rng(seed).choice(len(noise), min(FIRST, n), replace=False)
    have = [int(i) for i in first]
    results = {i: run(i) for i in have}
    while len(have) < n:
        predictor = fit(noise[have], np.array([results[i] for i in have]), base, groups)
        for i in suggest(predictor, noise, have, min(ROUND, n - len(have))):
            have.append(i)
            results[i] = run(i)
    return have
