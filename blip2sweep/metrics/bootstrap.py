"""One bootstrap over images, shared by all cells of a sample set: for bands, and for what many cells' drops add up to.

Resampling draws whole images: a VQA image brings all its questions, whose outcomes are correlated. Because every cell
meets the same resamples, the drop of each resample is a paired drop, and drops of different cells can be compared or
put into simultaneous bands. (Efron and Tibshirani, 1993, chapters 8 and 13.) The interval of one drop is not taken from
it: see intervals.py.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blip2sweep.metrics.images import Images, images
from blip2sweep.metrics.metric import FloatArray, Metric

_ROWS_AT_ONCE = 250  # counts become floats in blocks: 2000 x 40,000 images would be 640 MB of them


@dataclass(frozen=True, eq=False)
class Weights(Images):
    """How often each of m images is in each of B resamples of m images.

    counts: (B, m) uint8. Kept by image, not by sample, because a full VQA split has five questions an image.
    """

    counts: NDArray[np.uint8]

    def sums(self, statistics: FloatArray) -> FloatArray:
        """Weighted column sums of a statistic array (n, k): (B, k) float64."""
        by_image = self.by_image(statistics)
        blocks = range(0, len(self.counts), _ROWS_AT_ONCE)
        return np.concatenate([self.counts[i : i + _ROWS_AT_ONCE].astype(np.float64) @ by_image for i in blocks])

    def dense(self) -> NDArray[np.uint8]:
        """The weight of each sample in each resample, (B, n) uint8."""
        return self.counts[:, self.image]


def weights(image_ids: Sequence[Hashable], B: int = 2000, seed: int = 0) -> Weights:
    """The weight matrix of a sample set: multinomial over its distinct images; every row of counts sums to m.

    image_ids: the image of each of n samples. The draw belongs to the set of images: the order of the samples does not
    change which images a resample holds. The last 8 sample sets are remembered. Raises ValueError without samples.
    """
    if len(image_ids) == 0 or B < 1:
        raise ValueError(f"{len(image_ids)} samples and B = {B}; a bootstrap needs at least one of each")
    return _weights(tuple(str(image) for image in image_ids), B, seed)


@functools.lru_cache(maxsize=8)
def _weights(image_ids: tuple[str, ...], B: int, seed: int) -> Weights:
    own = images(image_ids)
    generator, size = np.random.default_rng(seed), own.count
    counts = np.empty((B, size), dtype=np.uint8)
    for row in counts:
        # The same distribution as generator.multinomial, 20 times faster for many images.
        row[:] = np.bincount(generator.integers(0, size, size), minlength=size)
    counts.flags.writeable = False  # shared by all callers
    return Weights(own.image, own.count, counts)


def resample(metric: Metric, statistics: FloatArray, W: Weights) -> FloatArray:
    """The metric in each resample, (B,), from a statistic array (n, k). NaN where a resample has nothing to score."""
    return metric.finish(W.sums(statistics))


def interval(samples: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of what many cells add up to, from its resamples (B,), NaN left out; its two ends."""
    known = samples[~np.isnan(samples)]
    if len(known) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def drop_samples(metric: Metric, baseline: FloatArray, statistics: FloatArray, W: Weights) -> FloatArray:
    """The paired drop in each resample, (B,): both cells see the same images. Both arrays are (n, k)."""
    return metric.drop(resample(metric, baseline, W), resample(metric, statistics, W))
