"""The paired drop of a cell and the share that it retains, with intervals: one rule for every metric of sums.

d is what an image's change moves the metric by, and k = (Σ|d|)² / Σd² how many images changed in effect. The m images
are drawn, with all their questions.

- k ≥ 30: Student's interval with Hall's transformation for skewness (Hall, 1992, Journal of the Royal Statistical
Society B 54, 221-228), from the influence of each image on the metric (infinitesimal jackknife: Efron, 1982, chapter
6).
- k < 30: losses and gains apart, each as the sum of a compound Poisson process of which one more, the largest
thinkable, was not seen (gamma intervals: Fay and Feuer, 1997, Statistics in Medicine 16, 791-801), put together by
MOVER (Zou and Donner, 2008, Statistics in Medicine 27, 1693-1702). Where no image changed this is the rule of three: at
95 % each end is 3.69/m away.

Percentile intervals put the truth above their upper end in up to half of all cases where breakage is rare, since what
was not drawn cannot be resampled; docs/benchmarks.md has how often this rule does.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from blip2sweep.metrics.images import Images
from blip2sweep.metrics.metric import FloatArray, Metric

LEVEL = 0.95
FEW = 30.0  # effective changed images, from which on images vouch for each other
NAN = float("nan")


class Drop(NamedTuple):
    """How much worse a cell is than its baseline (negative: better), with the ends of its interval."""

    drop: float
    low: float
    high: float


class Kept(NamedTuple):
    """The metric of a cell as a share of the baseline's, with the ends of its interval."""

    kept: float
    low: float
    high: float


def paired_drop(
    metric: Metric,
    baseline: FloatArray,
    statistics: FloatArray,
    images: Images | None = None,
    level: float = LEVEL,
    whole: float | None = None,
) -> Drop:
    """The drop of a cell from its baseline with its interval; positive is worse, whatever the metric.

    baseline, statistics: (n, k) arrays of the same n samples, in the order of the ids that `images` was made from;
    without it each row is an image. The upper end is also a one-sided bound at (1 + level) / 2: 97.5 % by default.
    whole: the metric of the model that both cells come from, where `baseline` is itself a cell: what an image may lose
    at most is an average image's share of that. NaN where there is nothing to score. Raises ValueError where the arrays
    are of other samples.
    """
    return _drop(metric, *counted(metric, baseline, statistics, images), level, whole)


def kept(
    metric: Metric,
    baseline: FloatArray,
    statistics: FloatArray,
    images: Images | None = None,
    level: float = LEVEL,
) -> Kept:
    """The ratio of a cell's metric and its baseline's, on the same images, with its interval; arguments as for
    `paired_drop`.

    NaN where the baseline is not above 0; NaN ends where the metric has no interval. Never below 0. Of a model that says nothing 0 is kept, and what may be kept
    on images that were not drawn has the width of the rule of three.
    """
    base, cell = counted(metric, baseline, statistics, images)
    whole, value, m = metric.value(base), metric.value(cell), len(base)
    if not whole > 0 or value != value:
        return Kept(NAN, NAN, NAN)
    ratio = value / whole
    if not metric.interval:
        return Kept(ratio, NAN, NAN)
    if effective(metric, base, cell) < FEW:
        found = _drop(metric, base, cell, level, None)
        low, high = sorted(1 - metric.sign * end / whole for end in (found.low, found.high))
    else:
        moved = (_moved(metric, cell, cell) - ratio * _moved(metric, base, base)) / whole
        low, high = hall(ratio, m * moved, level)
    least = -np.log((1 - level) / 2) / m if value == 0 else 0.0
    return Kept(ratio, max(0.0, low), max(high, float(least)))


def changed_images(metric: Metric, baseline: FloatArray, statistics: FloatArray, images: Images | None = None) -> int:
    """The number of images whose statistic of this metric differs from the baseline's."""
    base, cell = counted(metric, baseline, statistics, images)
    columns = slice(None) if metric.ratio is None else list(metric.ratio)
    return int((base[:, columns] != cell[:, columns]).any(axis=1).sum())


def few_changed(metric: Metric, baseline: FloatArray, statistics: FloatArray, images: Images | None = None) -> bool:
    """Whether so few images changed that the interval is that of a compound Poisson process."""
    return effective(metric, *counted(metric, baseline, statistics, images)) < FEW


def effective(metric: Metric, base: FloatArray, cell: FloatArray) -> float:
    """The effective number of changed images, k, from arrays by image, (m, k) each. 0 where nothing changed."""
    return _effective(_moved(metric, base - cell, (base + cell) / 2))


def _effective(moves: FloatArray) -> float:
    squares = float(moves @ moves)
    return float(np.abs(moves).sum()) ** 2 / squares if squares > 0 else 0.0


def counted(
    metric: Metric, baseline: FloatArray, statistics: FloatArray, images: Images | None
) -> tuple[FloatArray, FloatArray]:
    """Both arrays by image, without images that the metric does not count, such as those without a question of its
    type."""
    if len(baseline) != len(statistics):
        raise ValueError(f"a baseline of {len(baseline)} samples, a cell of {len(statistics)}; use the same set")
    base, cell = (a if images is None else images.by_image(a) for a in (baseline, statistics))
    if metric.ratio is None:
        return base, cell
    weight = metric.ratio[1]  # which may differ between cells: consistency counts what is answered correctly
    asked = (base[:, weight] > 0) | (cell[:, weight] > 0)
    return (base, cell) if asked.all() else (base[asked], cell[asked])


def _drop(metric: Metric, base: FloatArray, cell: FloatArray, level: float, whole: float | None) -> Drop:
    values = metric.value(base), metric.value(cell)
    drop = metric.drop(*values)
    if not len(base) or not np.isfinite(drop) or not metric.interval:
        return Drop(drop, NAN, NAN)
    moves = metric.sign * _moved(metric, base - cell, (base + cell) / 2)
    if _effective(moves) < FEW:
        unit = max(abs(values[0] if whole is None else whole), metric.worst) / len(base)
        below, above = poisson(moves, unit, level)
        return Drop(drop, drop - below, drop + above)
    moved = metric.sign * (_moved(metric, base, base) - _moved(metric, cell, cell))
    return Drop(drop, *hall(drop, len(base) * moved, level))


def _moved(metric: Metric, rows: FloatArray, at: FloatArray) -> FloatArray:
    """What each row changes the metric by, (m,): the gradient at the sums of `at`, times the row."""
    total = at.sum(axis=0)
    if metric.ratio is not None:
        above, below = metric.ratio
        with np.errstate(divide="ignore", invalid="ignore"):  # 0/0, of images that nobody asked about
            value: FloatArray = (rows[:, above] - total[above] / total[below] * rows[:, below]) / total[below]
        return value
    columns = np.flatnonzero(total > 0)  # what sums to 0 is 0 everywhere: statistics are counts
    steps = np.zeros((len(columns), len(total)))
    steps[np.arange(len(columns)), columns] = total[columns] * 1e-5
    slopes = (metric.finish(total + steps) - metric.finish(total - steps)) / (2e-5 * total[columns])
    moved: FloatArray = rows[:, columns] @ slopes
    return moved


# ---- the two intervals


def hall(value: float, influence: FloatArray, level: float = LEVEL) -> tuple[float, float]:
    """Student's interval of a value with influences u_i, (m,), whose mean is its change; monotone in the skewness
    (Hall, 1992).
    """
    m = len(influence)
    centred = influence - influence.mean()
    spread = float(np.sqrt(centred @ centred / (m - 1)))
    if spread <= 1e-12 * abs(value):
        return value, value
    skew = float((centred**3).mean()) / spread**3
    ends = []
    for t in (_student(level, m), -_student(level, m)):
        y = t / np.sqrt(m) - skew / (6 * m)
        ends.append(y if abs(skew) < 1e-9 else (np.cbrt(1 + skew * y) - 1) * 3 / skew)
    return value - spread * float(ends[0]), value - spread * float(ends[1])


def poisson(moves: FloatArray, unit: float, level: float = LEVEL) -> tuple[float, float]:
    """The distances from the sum of `moves`, (m,), down and up to the ends of its interval. unit: what an average image
    can lose."""
    losses, gains = np.maximum(moves, 0), np.maximum(-moves, 0)
    lost, won = float(losses.sum()), float(gains.sum())
    (lost_low, lost_high), (won_low, won_high) = (_fay(x, max(unit, float(x.max())), level) for x in (losses, gains))
    return float(np.hypot(lost - lost_low, won_high - won)), float(np.hypot(lost_high - lost, won - won_low))


def _fay(values: FloatArray, further: float, level: float) -> tuple[float, float]:
    """Both ends of the sum of values ≥ 0 as of a compound Poisson process, of which one more of size `further` was not
    seen.
    """
    m, total = len(values), float(values.sum())
    centred = values - values.mean()
    variance = float(centred @ centred) * m / max(m - 1, 1)
    tail = (1 - level) / 2
    low = _gamma(total, variance, tail) if m > 1 else 0.0
    return low, _gamma(total + further, variance + further**2, 1 - tail)


def _gamma(mean: float, variance: float, tail: float) -> float:
    """A quantile of the gamma distribution of a mean and variance."""
    from scipy.special import gammaincinv  # 0.2 s to import, which only who measures pays

    if variance <= 1e-12 * mean**2:
        return mean
    return variance / mean * float(gammaincinv(mean**2 / variance, tail))


@functools.lru_cache(maxsize=1024)
def _student(level: float, m: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(m - 1, (1 + level) / 2))


def student_factor(normal: float, m: int) -> float:
    """By how much an interval of `normal` standard errors, taken from resamples of m images, grows so that Student's
    distribution has the same tail beyond it; a resample's variance is that of m and not m − 1 images."""
    from scipy.special import ndtr, stdtrit

    if m < 2 or not normal > 0:
        return 1.0
    return float(np.sqrt(m / (m - 1)) * stdtrit(m - 1, ndtr(normal)) / normal)


# ---- what was not seen


def unseen(m: int, level: float = LEVEL) -> float:
    """The share of images that may break without one of them being among m: 3.69/m at 95 %, at most 1."""
    return min(1.0, float(-np.log((1 - level) / 2)) / m) if m > 0 else 1.0


def fewest_images(margin: float, level: float = LEVEL) -> int:
    """The number of images below which a loss of `margin` of the baseline could go unseen: 185 for 2 %."""
    return int(np.ceil(-np.log((1 - level) / 2) / margin))
