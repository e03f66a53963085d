"""How far off a prediction may be: a 90 % interval from the residuals of cells that were held out of the fit.

Cross-conformal prediction with normalised residuals (Vovk, 2015; Lei, G'Sell, Rinaldo, Tibshirani and Wasserman, 2018,
section 5). ŷ_i is the prediction of cell i by a fit on the other folds. The ends are ŷ ± q · σ(ŷ), where q is the
⌈(n + 1) · 0.9⌉-th smallest of |y_i − ŷ_i| / σ(ŷ_i). All values are shares of the baseline. σ(ŷ) = ŷ (1 − ŷ) + 0.02 is
the slope of the mean in log s: a recipe that is nearly whole or surely broken is known better than one on the cliff.
The baseline has no residual, since it is known.

On the published study intervals of nominally 90 % hold 91 to 95 % of the cells that were not run, on average over
choices of 8 to 150 cells that were run (tests/analysis). Where those are an unlucky choice, coverage can be two thirds.
The interval is of a run on these images; it does not hold the spread between samples of images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from blip2sweep.analysis.predict import fit

Array = NDArray[np.float64]
LEVEL, FLOOR, FOLDS = 0.9, 0.02, 10


def scale(retained: Array) -> Array:
    """σ: how large residuals are at a predicted share of the baseline, up to a factor."""
    inside = np.clip(retained, 0, 1)
    return inside * (1 - inside) + FLOOR


def quantile(noise: Array, metric: Array, base: float, families: Sequence[str], level: float = LEVEL) -> float:
    """q of the cells; arguments are as in `predict.fit`. Cells whose noise is 0 are not predicted. inf with fewer than
    two others."""
    touched = np.flatnonzero(noise.any(axis=1))
    if len(touched) < 2:
        return float("inf")
    fold = np.full(len(noise), -1)  # −1: in every fit
    fold[touched] = np.random.default_rng(0).permutation(len(touched)) % min(FOLDS, len(touched))
    scores: list[float] = []
    for k in range(int(fold.max()) + 1):
        train, test = fold != k, fold == k
        predicted = fit(noise[train], metric[train], base, families)(noise[test]) / base
        scores += (np.abs(metric[test] / base - predicted) / scale(predicted)).tolist()
    rank = int(np.ceil((len(scores) + 1) * level))
    return float(np.sort(scores)[min(rank, len(scores)) - 1])
