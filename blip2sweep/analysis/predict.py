"""The metric of a recipe that was not run: a saturating noise-power model, corrected by a Gaussian process.

Mean: metric ≈ baseline / (1 + s^p) with s = Σ_j w_j n_j over layer groups j. n_j is the power of the rounding noise
(layer_groups.py). w_j ≥ 0 says how much a group matters. The w_j are shrunk on the log scale towards the mean of their
family (the same layers of one part), and p towards 1.2.

Correction: the error of the mean is smooth in how much each group suffers. It is a Gaussian process over
φ_j = log(1 + 3 w_j n_j) with a squared exponential kernel; its scales maximize the marginal likelihood (Rasmussen and
Williams, 2006, chapters 2 and 5). Groups that matter little have φ ≈ 0, so cells that differ only there predict each
other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import least_squares, minimize

from blip2sweep.analysis.stopped import of_verdicts
from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
SHRINK = 1.0  # prior standard deviation of log w within a family
LOOSE, TIGHT = 0.25, 0.06  # standard deviation of the mean's residuals, with and without the process
PRIOR = np.array([np.log(0.2), 0.0, np.log(0.02)]), np.array([0.7, 1.0, 0.7])  # log scale, length, noise of the process


@dataclass
class Mean:
    """The share of the baseline that is retained, 1 / (1 + s^p) with s = n · w. weights: w, (groups,); power: p."""

    weights: Array
    power: float

    def sensitivity(self, noise: Array) -> Array:
        """s of each cell, (cells,). noise: (cells, groups)."""
        return noise @ self.weights

    def __call__(self, noise: Array) -> Array:
        """The share of the baseline that each cell retains, (cells,). noise: (cells, groups)."""
        return 1 / (1 + np.exp(np.clip(self.power * np.log(self.sensitivity(noise) + 1e-12), -50, 50)))

    def noise_for(self, retained: float) -> float:
        """The s at which this share of the baseline is retained."""
        return float((1 / np.clip(retained, 1e-6, 1 - 1e-9) - 1) ** (1 / self.power))


def fit_mean(noise: Array, retained: Array, families: Sequence[str], residual: float = TIGHT) -> Mean:
    """The mean that fits best by least squares with priors.

    noise: (cells, groups). retained: metric / baseline, (cells,). families: one name for each group. residual: the
    standard deviation of what the mean misses.
    """
    names = list(dict.fromkeys(families))
    family, n, m = np.array([names.index(f) for f in families]), noise.shape[1], len(names)

    def residuals(t: Array) -> Array:
        fit = Mean(np.exp(t[:n]), float(np.exp(t[n])))(noise) - retained
        priors = [(t[:n] - t[n + 1 :][family]) / SHRINK, (t[n + 1 :] - 2) / 4, [(t[n] - np.log(1.2)) / 0.5]]
        return np.concatenate([fit / residual, *priors])

    starts = [np.concatenate([np.full(n, s), [0.2], np.full(m, s)]) for s in (1.0, 3.0)]
    best = min((least_squares(residuals, s, max_nfev=200) for s in starts), key=lambda o: o.cost)
    return Mean(np.exp(best.x[:n]), float(np.exp(best.x[n])))


@dataclass
class Predictor:
    """A fitted model. Its arrays are of shares of the baseline; base: the baseline's metric.

    noise: of the n cells it was fitted on, (n, groups). alpha: the inverse kernel matrix times the mean's residuals,
    (n,). inverse: that matrix, (n, n). scales: scale², length and noise² of the Gaussian process, (3,).
    """

    mean: Mean
    base: float
    noise: Array
    alpha: Array
    inverse: Array
    scales: Array

    def __call__(self, noise: Array) -> Array:
        """The predicted metric of cells, (cells,). noise: (cells, groups)."""
        return self.base * np.clip(self.mean(noise) + self._kernel(noise, self.noise) @ self.alpha, 0, None)

    def latent(self, noise: Array, fitted: Rows) -> tuple[Array, Array]:
        """(mean, standard deviation) of what cells really keep, in shares of the baseline, (cells,) each.

        fitted: for each cell its row among those of the fit, -1 for the others. What a cell keeps beside the smooth
        correction is known of it alone, and the better the smaller the error it was fitted with.
        """
        cross = self._kernel(noise, self.noise)
        there = np.flatnonzero(fitted >= 0)
        cross[there, fitted[there]] += self.scales[2]
        spread = self.scales[0] + self.scales[2] - ((cross @ self.inverse) * cross).sum(axis=1)
        return np.clip(self.mean(noise) + cross @ self.alpha, 0, None), np.sqrt(np.maximum(spread, 0))

    def again(self, noise: Array, metric: Array, errors: Array) -> Predictor:
        """The same mean and scales with other results; arguments as of `fit`."""
        return _posterior(self.mean, self.base, noise, metric / self.base, self.scales, (errors / self.base) ** 2)

    def covariance(self, noise: Array) -> Array:
        """The posterior covariance of the correction, (cells, cells), in squared shares of the baseline."""
        cross = self._kernel(noise, self.noise)
        return self._kernel(noise, noise) - cross @ self.inverse @ cross.T

    def _kernel(self, one: Array, other: Array) -> Array:
        return _kernel(_features(one, self.mean), _features(other, self.mean), self.scales)


def _features(noise: Array, mean: Mean) -> Array:
    return np.log1p(3 * noise * mean.weights)


def _kernel(one: Array, other: Array, scales: Array) -> Array:
    squared = (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T
    return scales[0] * np.exp(-0.5 * np.maximum(squared, 0) / scales[1] ** 2)


def predictable(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The cells that a fit can use: those of `competing` that did not stop with a verdict, whose values are not known
    closely enough. Raises UserError as that does.
    """
    return competing(cells[~of_verdicts(cells)], metric)


def competing(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The cells whose metric is a number.

    Raises UserError, one line, where the metric is no share of the baseline: where lower is better, or where the
    baseline's metric is no number above 0.
    """
    if not METRICS[metric].higher_is_better:
        raise UserError(
            f"{metric} is no share of the baseline, so it is not predicted; right: cells with cider or vqa_accuracy"
        )
    base = float(cells.loc[cells["part"] == "none", metric].iloc[0])
    if not np.isfinite(base) or base <= 0:
        raise UserError(
            f"the baseline's {metric} is {base:g}, so nothing can be predicted as a share of it; right: a set-up whose baseline "
            f"works, see `blip2sweep doctor`"
        )
    return cells[np.isfinite(cells[metric].to_numpy(float))]


def fit(
    noise: Array, metric: Array, base: float, families: Sequence[str], errors: Array | None = None
) -> Predictor:  # fmt: skip
    """A predictor fitted on cells.

    noise: (cells, groups), a row of zeros for the baseline. metric: (cells,), finite. base: the baseline's metric,
    above 0. families: one name for each group. errors: the standard error of each metric, (cells,); None: all cells
    are as well known.
    """
    retained = metric / base
    extra = np.zeros(len(retained)) if errors is None else (errors / base) ** 2
    mean = fit_mean(noise, retained, families, LOOSE)
    features, residual = _features(noise, mean), retained - mean(noise)

    def factor(t: Array) -> tuple[Array, tuple[Array, bool]]:
        scales = np.exp(t * np.array([2, 1, 2]))
        return scales, _factor(features, scales, extra)

    def cost(t: Array) -> float:
        _, lower = factor(t)
        fitted = residual @ cho_solve(lower, residual) / 2 + np.log(np.diag(lower[0])).sum()
        return float(fitted + (((t - PRIOR[0]) / PRIOR[1]) ** 2).sum() / 2)

    starts = [np.array([np.log(0.2), length, np.log(0.03)]) for length in (-0.5, 0.7)]
    # Six standard deviations of the prior to either side. A longer first step could make a scale 0 and the kernel NaN.
    bounds = list(zip(PRIOR[0] - 6 * PRIOR[1], PRIOR[0] + 6 * PRIOR[1], strict=True))
    best = min((minimize(cost, s, method="L-BFGS-B", bounds=bounds) for s in starts), key=lambda o: o.fun)
    return _posterior(mean, base, noise, retained, factor(best.x)[0], extra)


def _factor(features: Array, scales: Array, extra: Array) -> tuple[Array, bool]:
    """The Cholesky factor of the kernel matrix with its noise. extra: variance of each cell's own error, (cells,)."""
    gram = _kernel(features, features, scales) + np.diag(scales[2] + 1e-8 + extra)
    return cho_factor(gram, lower=True)


def _posterior(mean: Mean, base: float, noise: Array, retained: Array, scales: Array, extra: Array) -> Predictor:
    inverse = cho_solve(_factor(_features(noise, mean), scales, extra), np.eye(len(retained)))
    return Predictor(mean, base, noise, inverse @ (retained - mean(noise)), inverse, scales)


# ---- how good it is


def bits_alone(widths: Array, train: Rows, metric: Array) -> Array:
    """A predictor to beat: the mean of the training cells of the same lowest width, (cells,).

    widths: (cells, groups).
    """
    return _category_means([(_lowest(w),) for w in widths], train, metric)


def bits_by_parts(widths: Array, parts: Sequence[str], train: Rows, metric: Array) -> Array:
    """A predictor to beat: the mean of the training cells of the same lowest width and the same parts, else of the
    width.

    parts: the part of each layer group.
    """
    names = np.array(parts)
    return _category_means([(_lowest(w), *sorted(set(names[w > 0]))) for w in widths], train, metric)


def _lowest(widths: Array) -> float:
    return float(min(widths[widths > 0], default=0))


def _category_means(categories: Sequence[tuple[object, ...]], train: Rows, metric: Array) -> Array:
    """The mean over the training cells of the same category, else of the same first element, else of all."""
    found = np.empty(len(categories))
    for i, category in enumerate(categories):
        same = [metric[j] for j in train if categories[j] == category]
        same = same or [metric[j] for j in train if categories[j][0] == category[0]]
        found[i] = np.mean(same or metric[train])
    return found


def cross_validated(
    widths: Array, noise: Array, metric: Array, base: float, families: Sequence[str], folds: int = 5
) -> dict[str, float]:
    """The mean absolute error of cells held out, in units of the metric: of `model` and of the two predictors to beat.

    Arguments are as in `fit`; widths: (cells, groups) in bits.
    """
    fold = np.random.default_rng(0).permutation(len(metric)) % min(folds, len(metric))
    errors: dict[str, list[Array]] = {"model": [], "bits": [], "bits × parts": []}
    for k in range(int(fold.max()) + 1):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        guesses = {
            "model": fit(noise[train], metric[train], base, families)(noise),
            "bits": bits_alone(widths, train, metric),
            "bits × parts": bits_by_parts(widths, [f.split("+")[0] for f in families], train, metric),
        }
        for name, guess in guesses.items():
            errors[name].append(np.abs(guess - metric)[test])
    return {name: float(np.concatenate(e).mean()) for name, e in errors.items()}
