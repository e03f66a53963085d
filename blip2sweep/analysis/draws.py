"""The metric of many cells in every resample of the images, from their score files, and their intervals.

All cells share one weight matrix (B = 2000 resamples, clustered by image). So the difference of any two cells is
paired, families of cells can have simultaneous bands, and one matrix product resamples many cells.

A cell that stopped has the samples of some images only, the first of the sample set's order. It is compared with another
cell on the images that both have, and its value is what it keeps there, times the whole baseline's (metrics/prefix.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from blip2sweep.analysis.resamples import resample_all
from blip2sweep.analysis.stopped import Samples
from blip2sweep.metrics import (
    METRICS,
    Drop,
    Images,
    Kept,
    Metric,
    changed_images,
    few_changed,
    images,
    kept,
    paired_drop,
)
from blip2sweep.metrics.intervals import LEVEL
from blip2sweep.metrics.prefix import carried, is_share, prefix_drop, prefix_kept
from blip2sweep.metrics.stopping import LEVEL as STOPPED_LEVEL
from blip2sweep.results.predictions import read_predictions, read_statistic, stem
from blip2sweep.rows import Id

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass
class Draws:
    """Statistics of the cells that have outputs. Drops are positive where a cell is worse.

    image_ids: of the n samples. arrays: {key: statistics, (n, k)}; of a cell that stopped (n', k) of its own samples.
    baseline: its key, a whole cell. resampled: {key: the metric in each resample, (B,)}. seen: {key: which of the n
    samples a cell that stopped has, (n,)}.
    """

    metric: Metric
    image_ids: list[Id]
    arrays: dict[str, Array]
    baseline: str
    resampled: dict[str, Array]
    seen: dict[str, Mask] = field(default_factory=dict)

    def __contains__(self, key: str) -> bool:
        """Whether a cell has statistics."""
        return key in self.arrays

    @cached_property
    def images(self) -> Images:
        """Which samples belong to which image."""
        return images(self.image_ids)

    def count(self, *keys: str) -> int:
        """The number of images that all these cells have."""
        there = self._common(keys)
        return self.images.count if there is None else len({self.image_ids[i] for i in np.flatnonzero(there)})

    def level(self, *keys: str) -> float:
        """The level of the interval of a cell or of a difference: 95 %, or 99.5 % where one of them stopped."""
        return STOPPED_LEVEL if any(k in self.seen for k in keys) else LEVEL

    def value(self, key: str, images: Mask | None = None) -> float:
        """The metric of a cell, on all images or on those of a mask (n,)."""
        if key not in self.seen:
            return self.metric.value(self.arrays[key] if images is None else self.arrays[key][images])
        own, base = self._both(key, self.baseline, images)
        whole = self.value(self.baseline, images)
        return carried(self.metric, self.metric.value(own), self.metric.value(base), whole)

    def paired(self, key: str, other: str | None = None) -> Drop:
        """How much worse a cell is than another, or than the baseline, with the interval as in the table, of `level`.

        Of cells of which one stopped: on the images that both have, as a share of the baseline there, times the whole
        baseline. NaN where they have none in common.
        """
        own, than = self._both(key, other or self.baseline)
        whole = self.value(self.baseline)
        if not {key, other} & self.seen.keys():
            return paired_drop(self.metric, than, own, self.images, whole=None if other is None else whole)
        if not len(own):
            return Drop(np.nan, np.nan, np.nan)
        there = self._images(key, other or self.baseline)
        if other is None or other == self.baseline:
            return prefix_drop(self.metric, than, own, there, whole)
        base = self.metric.value(self.arrays[self.baseline][self._common([key, other])])
        found = paired_drop(self.metric, than, own, there, STOPPED_LEVEL, base)
        scale = whole / base if base > 0 and is_share(self.metric) else 1.0
        return Drop(*(scale * end for end in found))

    def ahead(self, key: str, other: str, images: Mask) -> float:
        """How much better a cell is than another, on the images of a mask (n,) that both have; NaN where there is none."""
        own, than = map(self.metric.value, self._both(key, other, images))
        return -self.metric.drop(than, own)

    def kept(self, key: str) -> Kept:
        """The share of the baseline's metric that a cell retains, with its interval, of `level`."""
        own, base = self._both(key, self.baseline)
        if key not in self.seen:
            return kept(self.metric, base, own, self.images)
        return prefix_kept(self.metric, base, own, self._images(key)) if len(own) else Kept(np.nan, np.nan, np.nan)

    def changed(self, key: str) -> int:
        """The number of images on which a cell differs from the baseline, of those that it has."""
        own, base = self._both(key, self.baseline)
        return changed_images(self.metric, base, own, self._images(key)) if len(own) else 0

    def least(self, key: str, other: str | None = None) -> float:
        """The least half width of a band: that of the pair's own interval, where too few images differ for resamples to
        know the error and where one of them stopped; else 0."""
        than, own = self.arrays[other or self.baseline], self.arrays[key]
        if not {key, other} & self.seen.keys() and not few_changed(self.metric, than, own, self.images):
            return 0.0
        found = self.paired(key, other)
        return max(found.high - found.drop, found.drop - found.low)

    def drop(self, key: str) -> Array:
        """The paired drop of a cell in each resample, (B,)."""
        return self.metric.drop(self.resampled[self.baseline], self.resampled[key])

    def drops(self, keys: Sequence[str]) -> Array:
        """The paired drops of several cells, (len(keys), B)."""
        return np.array([self.drop(k) for k in keys])

    def half(self, first: bool) -> Mask:
        """The mask (n,) of one half of the images. It depends on the set of image ids alone, not on their order.

        Nor does it on the order in which cells see them: of the images of one that stopped about half are in it.
        """
        images = sorted(set(self.image_ids), key=str)
        chosen = set(np.random.default_rng(0).permutation(len(images))[: len(images) // 2].tolist())
        inside = {image: (i in chosen) == first for i, image in enumerate(images)}
        return np.array([inside[i] for i in self.image_ids])

    def only(self, keys: Sequence[str]) -> Draws:
        """The draws of the baseline and of these cells."""
        chosen = [self.baseline, *keys]
        arrays, resampled = ({k: own[k] for k in chosen if k in own} for own in (self.arrays, self.resampled))
        seen = {k: self.seen[k] for k in chosen if k in self.seen}
        return Draws(self.metric, self.image_ids, arrays, self.baseline, resampled, seen)

    def on(self, images: Mask) -> Draws:
        """The same cells on the images of a mask (n,), without resamples."""
        ids = [i for i, keep in zip(self.image_ids, images, strict=True) if keep]
        arrays = {k: self._rows(k, images) for k in self.arrays}
        return Draws(self.metric, ids, arrays, self.baseline, {}, {k: m[images] for k, m in self.seen.items()})

    def by_sample(self, key: str) -> Array:
        """The metric of each sample alone, (n,); NaN of those that a cell that stopped has not."""
        each = self.metric.each(self.arrays[key])
        if key not in self.seen:
            return each
        found = np.full(len(self.image_ids), np.nan)
        found[self.seen[key]] = each
        return found

    # ---- cells that stopped

    def _common(self, keys: Sequence[str], images: Mask | None = None) -> Mask | None:
        """The samples of a mask (n,) that all these cells have; None for all there are."""
        masks = [*(self.seen[k] for k in keys if k in self.seen), *([] if images is None else [images])]
        return np.logical_and.reduce(masks) if masks else None

    def _rows(self, key: str, there: Mask) -> Array:
        """The statistics of a cell on those of its samples that are in a mask (n,)."""
        return self.arrays[key][there[self.seen[key]] if key in self.seen else there]

    def _both(self, key: str, other: str, images: Mask | None = None) -> tuple[Array, Array]:
        """The statistics of two cells on the samples of a mask (n,) that both have."""
        there = self._common([key, other], images)
        if there is None:
            return self.arrays[key], self.arrays[other]
        return self._rows(key, there), self._rows(other, there)

    def _images(self, *keys: str) -> Images:
        """Which of the samples that these cells have belong to which image."""
        there = self._common(keys)
        return self.images if there is None else images([self.image_ids[i] for i in np.flatnonzero(there)])


def load_draws(output_dir: Path, cells: pd.DataFrame, metric: str, resampled: bool = True) -> Draws | None:
    """The draws of the cells that have outputs and statistics of this metric; None where the baseline has none.

    cells: rows of one model, task and data set. resampled=False leaves the resamples out: then there are intervals of
    single cells and of pairs, but no bands. Score files are read, and the predictions of the baseline alone.
    """
    own = cells[cells["predictions"].notna()] if "predictions" in cells else cells.iloc[:0]
    base = own[own["part"] == "none"]
    if base.empty:
        return None
    statistic = METRICS[metric].statistic
    loaded: dict[str, tuple[Array | None, str]] = {}
    arrays: dict[str, Array] = {}
    versions: dict[str, str] = {}  # of what is installed beside this package; only equal ones are compared
    for key, outputs in zip(own["key"], own["predictions"], strict=True):
        # Equal outputs have equal scores, whichever cell they came from. A likelihood does not follow from the output, and
        # a variant may be scored with another version of what is installed.
        name = stem(key, outputs) if METRICS[metric].plain or not METRICS[metric].of_output else outputs
        if name not in loaded:
            loaded[name] = read_statistic(output_dir, stem(key, outputs), statistic)
        found, versions[key] = loaded[name]
        if found is not None:
            arrays[key] = found
    first = base.iloc[0]
    if first["key"] not in arrays:
        return None
    predictions = read_predictions(output_dir, stem(first["key"], first["predictions"]))
    version, of_stopped = versions[first["key"]], Samples(output_dir, predictions.id)
    same, seen = dict[str, Array](), dict[str, Mask]()
    for key, outputs in zip(own["key"], own["predictions"], strict=True):
        if key not in arrays or versions[key] != version:
            continue
        if len(arrays[key]) == len(predictions.id):
            same[key] = arrays[key]
        elif (part := of_stopped(stem(key, outputs), arrays[key])) is not None:
            same[key], seen[key] = part
    sampled = resample_all(METRICS[metric], predictions.image_id, same, first["key"], seen) if resampled else {}
    return Draws(METRICS[metric], predictions.image_id, same, first["key"], sampled, seen)
