"""What a cell that stopped says of all images, from the images that it has: the first of the sample set's order.

Its mean over these images is not what a whole run has, because they may be easy or hard ones. What it keeps of the
baseline on the same images is: the ratio, times the whole baseline. Its intervals have the level of a look, 99.5 %, which
holds whatever made it stop.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from blip2sweep.metrics.images import Images
from blip2sweep.metrics.intervals import Drop, Kept, kept, paired_drop
from blip2sweep.metrics.metric import FloatArray, Metric
from blip2sweep.metrics.stopping import LEVEL, can_stop, ratio

Value = TypeVar("Value", float, FloatArray)


def carried(metric: Metric, seen: Value, base: Value, whole: Value) -> Value:
    """The metric over all images, of numbers or of arrays: seen / base × whole.

    seen, base: of the cell and the baseline on the cell's images; whole: of the baseline on all. Where the metric is no
    share of the baseline's, such as a rate of empty outputs, the difference is added instead.
    """
    by_ratio = (np.asarray(base) > 0) & is_share(metric)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(by_ratio, np.divide(seen, base) * whole, np.add(whole, np.subtract(seen, base)))
    if not is_share(metric):
        found = np.clip(found, 0, metric.worst or np.inf)
    return found if np.ndim(found) else float(found)  # type: ignore[return-value]


def is_share(metric: Metric) -> bool:
    """Whether a value is read as a share of the baseline's."""
    return metric.higher_is_better or metric.order is not None


def prefix_kept(metric: Metric, baseline: FloatArray, statistics: FloatArray, images: Images | None = None) -> Kept:
    """The ratio of a stopped cell's metric and its baseline's on the same images, with its 99.5 % interval.

    Of the metrics that cells stop on it is the interval that they stopped by. Arguments as for `paired_drop`.
    """
    if not can_stop(metric):
        return kept(metric, baseline, statistics, images, LEVEL)
    value, low, high = ratio(metric, statistics, baseline, images)
    if np.isnan(value):  # the two count other samples, which the general rule can compare
        return kept(metric, baseline, statistics, images, LEVEL)
    return Kept(value, max(0.0, low), high) if np.isfinite(high) else Kept(value, np.nan, np.nan)


def prefix_drop(
    metric: Metric, baseline: FloatArray, statistics: FloatArray, images: Images | None, whole: float
) -> Drop:
    """How much worse a stopped cell is than the whole baseline, with its 99.5 % interval.

    baseline, statistics: (n, k), on the cell's images. whole: the baseline's metric on all images.
    """
    base = metric.value(baseline)
    if not (is_share(metric) and base > 0):
        found = paired_drop(metric, baseline, statistics, images, LEVEL)
        shift = metric.drop(whole, carried(metric, metric.value(statistics), base, whole)) - found.drop
        return Drop(*(end + shift for end in found))
    value, *ends = (metric.drop(whole, whole * end) for end in prefix_kept(metric, baseline, statistics, images))
    return Drop(value, min(ends), max(ends))
