"""When a cell has seen enough images: repeated looks at what it keeps of its baseline.

What a cell keeps is R, the sum of its scores over the sum of the baseline's on the same images. Its interval at a look
is Fieller's for a ratio of means (Fieller, 1954, Journal of the Royal Statistical Society B 16, 175-185) with Student's
quantile, from five sums over images. Where fewer than FEW images changed, or fewer than FEW score at all, sums do not
know of what was not drawn: there an end is no closer than the exact bound of that share of images (Clopper and Pearson,
1934, Biometrika 26, 404-413).

Each look has the same one-sided level of .0025, whatever the number of looks, so that a cell that stopped may go on and
a sample set may grow. The chance that some look is wrong at one side stays below .025 for 16 looks in steps of about
√2, and for 24 looks in doublings (Brownian motion; Armitage, McPherson and Rowe, 1969). The interval of a stopped cell
is the same one: it holds whatever made the cell stop (repeated confidence intervals: Jennison and Turnbull, 1989).
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import numpy as np

from blip2sweep.metrics.images import Images
from blip2sweep.metrics.intervals import counted
from blip2sweep.metrics.metric import FloatArray, Metric

LEVEL = 0.995  # of the two-sided interval at a look
FIRST = 64  # images before the first look
MOST_BY_HALF_STEPS = 11_000  # images of a sample set up to which there are looks between the doublings
FEW = 10  # images
SCORES = 0.05  # of an average baseline image's score, above which an image counts as scoring
BELOW = 0.5  # kept at most this: a cell that collapsed, which no sweep needs to know better
COLLAPSED, WITHIN, LOSES = "below 50 %", "within", "loses more than"  # of the reasons, what no margin changes


class Rule(NamedTuple):
    """When to stop. margin: as a share of the baseline, the half width that `known` asks for, or what may be lost by
    `verdict`."""

    stop: Literal["known", "verdict"]
    margin: float


class Ratio(NamedTuple):
    """What a cell keeps of its baseline on the same images, with the ends of its 99.5 % interval, which may lie below
    0. Without a value that is a number the ends are infinite."""

    value: float
    low: float
    high: float


class Sums(NamedTuple):
    """Sums over n images of the cell's score x and the baseline's b, and two counts of images: those that changed, and
    those that score. Arrays of one shape, () for one cell at one look."""

    n: FloatArray
    x: FloatArray
    b: FloatArray
    xx: FloatArray
    bb: FloatArray
    xb: FloatArray
    changed: FloatArray
    scoring: FloatArray


def looks(images: int) -> list[int]:
    """The numbers of images after which a cell of a sample set of `images` is looked at; the last is all of them."""
    steps = (2, 3) if images <= MOST_BY_HALF_STEPS else (2,)
    doublings = range(max(images, 1).bit_length())
    return [*sorted({n for k in doublings for s in steps if (n := FIRST // 2 * s * 2**k) < images}), images]


def can_stop(metric: Metric) -> bool:
    """Whether cells may stop on a metric: a share of a sum that a table may be about, of which more is better.

    A likelihood is no verdict on outputs, and its interval holds too rarely; corpus metrics have no image sums.
    """
    return metric.ratio is not None and metric.higher_is_better and metric.interval and metric.order is not None


def ratio(metric: Metric, cell: FloatArray, baseline: FloatArray, images: Images | None = None) -> Ratio:
    """What a cell keeps of its baseline with its 99.5 % interval.

    cell, baseline: (n, k) statistic arrays of the same n samples; images: which samples belong to which image, by
    default one each. Nothing is known where the two count other samples, such as a share of those answered correctly.
    Raises ValueError for a metric that `can_stop` refuses, and for arrays of other samples.
    """
    sums = sums_of(metric, cell, baseline, images)
    return Ratio(np.nan, -np.inf, np.inf) if sums is None else kept(sums)


def sums_of(metric: Metric, cell: FloatArray, baseline: FloatArray, images: Images | None = None) -> Sums | None:
    """The sums that `ratio` goes by; None where the two count other samples. The arguments and errors are its own."""
    if not can_stop(metric) or metric.ratio is None:
        raise ValueError(f"{metric.name}: no share of image sums; use a metric that can_stop allows")
    base, own = counted(metric, baseline, cell, images)
    score, weight = metric.ratio
    if not len(base) or not np.array_equal(base[:, weight], own[:, weight]):
        return None
    return image_sums(own[:, score], base[:, score])


def image_sums(x: FloatArray, b: FloatArray) -> Sums:
    """The sums of the scores of n images, (n,) each, of a cell and its baseline."""
    scoring = x > SCORES * b.mean()
    told = len(x), x.sum(), b.sum(), x @ x, b @ b, x @ b, (x != b).sum(), scoring.sum()
    return Sums(*(np.asarray(s, dtype=np.float64) for s in told))


def kept(sums: Sums) -> Ratio:
    """What a cell keeps with its 99.5 % interval, from its sums at one look."""
    if not (sums.b > 0 and np.isfinite(sums.x)):
        return Ratio(np.nan, -np.inf, np.inf)
    low, high = interval(sums)
    return Ratio(float(sums.x / sums.b), float(low), float(high))


def interval(sums: Sums, level: float = LEVEL) -> tuple[FloatArray, FloatArray]:
    """Both ends of the interval of what is kept, with the shape of the sums.

    Infinite where the baseline's own sum cannot be told from 0, and for a single image.
    """
    tail = (1 - level) / 2
    low, high = fieller(sums, tail)
    unseen, few = clopper_pearson(sums.changed, sums.n, tail), sums.changed < FEW
    low = np.where(few, np.minimum(low, 1 - unseen), low)
    high = np.where(few, np.maximum(high, 1 + unseen), high)
    loudest = clopper_pearson(sums.scoring, sums.n, tail)
    return low, np.where(sums.scoring < FEW, np.maximum(high, loudest), high)


def fieller(sums: Sums, tail: float) -> tuple[FloatArray, FloatArray]:
    """Both ends of the ratio of two means, each wrong with a chance of `tail`: the roots of
    (x − r b)² = t² / n · var(x − r b), where x and b are means."""
    n, x, b = sums.n, sums.x / sums.n, sums.b / sums.n
    t2, free = _student(tail, n) ** 2 / n, np.maximum(n - 1, 1)
    c, h, k = (own - t2 * (s - n * own) / free for own, s in ((b * b, sums.bb), (x * b, sums.xb), (x * x, sums.xx)))
    root = np.sqrt(np.maximum(h * h - c * k, 0))
    known = (c > 0) & (n > 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = (h - root) / c, (h + root) / c
    return np.where(known, low, -np.inf), np.where(known, high, np.inf)


def clopper_pearson(k: FloatArray, n: FloatArray, tail: float) -> FloatArray:
    """The upper end of a share of which k of n were seen, wrong with a chance of `tail`."""
    from scipy.special import betaincinv  # 0.2 s to import, which only who measures pays

    end: FloatArray = np.where(k >= n, 1.0, betaincinv(k + 1, np.maximum(n - k, 1e-9), 1 - tail))
    return end


def decide(rule: Rule, found: Ratio) -> str | None:
    """Why a cell may stop, in words; None where it has to go on."""
    margin = f"{100 * rule.margin:g} %"
    if found.high < BELOW:
        return COLLAPSED
    if rule.stop == "known":
        return f"known to ±{margin}" if (found.high - found.low) / 2 <= rule.margin else None
    if found.low > 1 - rule.margin:
        return f"{WITHIN} {margin}"
    return f"{LOSES} {margin}" if found.high < 1 - rule.margin else None


def is_verdict(reason: str) -> bool:
    """Whether a cell stopped for a verdict that `known` does not know: what it keeps need not be known closely."""
    return reason.startswith((WITHIN, LOSES))


def is_stricter(asked: Rule | None, had: Rule | None, reason: str | None = None) -> bool:
    """Whether a result that stopped by the rule `had` is unfinished for who asks by another; None asks for all images.

    A value known more closely answers both what asks for less and a verdict at no smaller tolerance. A verdict answers
    the same verdict alone: who loses more than 2 % may be within 5 %. reason: why the result stopped; by every rule a
    collapsed cell stops.
    """
    if had is None:
        return False
    if asked is None:
        return True
    if reason == COLLAPSED or asked == had:
        return False
    return had.stop == "verdict" or asked.margin < had.margin


@functools.lru_cache(maxsize=256)
def _quantile(tail: float, degrees: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1 - tail))


def _student(tail: float, n: FloatArray) -> FloatArray:
    """Student's quantile at n − 1 degrees, by number of images."""
    sizes, where = np.unique(n, return_inverse=True)
    return np.array([_quantile(tail, max(float(m) - 1, 1.0)) for m in sizes])[where].reshape(np.shape(n))
