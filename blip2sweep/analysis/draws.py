"""The metric of many cells in every resample of the images, from their score files, and their intervals.

All cells share one weight matrix (B = 2000 resamples, clustered by image). So the difference of any two cells is
paired, families of cells can have simultaneous bands, and one matrix product resamples many cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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
    weights,
)
from blip2sweep.results.predictions import read_predictions, read_statistic, stem
from blip2sweep.rows import Id

Array = NDArray[np.float64]
COLUMNS_AT_ONCE = 4096


@dataclass
class Draws:
    """Statistics of the cells that have outputs. Drops are positive where a cell is worse.

    image_ids: of the n samples. arrays: {key: statistics, (n, k)}. baseline: its key. resampled: {key: the metric in
    each resample, (B,)}.
    """

    metric: Metric
    image_ids: list[Id]
    arrays: dict[str, Array]
    baseline: str
    resampled: dict[str, Array]

    def __contains__(self, key: str) -> bool:
        """Whether a cell has statistics."""
        return key in self.arrays

    @cached_property
    def images(self) -> Images:
        """Which samples belong to which image."""
        return images(self.image_ids)

    def value(self, key: str, images: NDArray[np.bool_] | None = None) -> float:
        """The metric of a cell, on all images or on those of a mask (n,)."""
        return self.metric.value(self.arrays[key] if images is None else self.arrays[key][images])

    def paired(self, key: str, other: str | None = None) -> Drop:
        """How much worse a cell is than another, or than the baseline, with the 95 % interval as in the table."""
        whole = None if other is None else self.value(self.baseline)
        return paired_drop(self.metric, self.arrays[other or self.baseline], self.arrays[key], self.images, whole=whole)

    def kept(self, key: str) -> Kept:
        """The share of the baseline's metric that a cell retains, with its 95 % interval."""
        return kept(self.metric, self.arrays[self.baseline], self.arrays[key], self.images)

    def changed(self, key: str) -> int:
        """The number of images on which a cell differs from the baseline."""
        return changed_images(self.metric, self.arrays[self.baseline], self.arrays[key], self.images)

    def least(self, key: str, other: str | None = None) -> float:
        """The least half width of a band where too few images differ for resamples to know the error; else 0."""
        if not few_changed(self.metric, self.arrays[other or self.baseline], self.arrays[key], self.images):
            return 0.0
        found = self.paired(key, other)
        return max(found.high - found.drop, found.drop - found.low)

    def drop(self, key: str) -> Array:
        """The paired drop of a cell in each resample, (B,)."""
        return self.metric.drop(self.resampled[self.baseline], self.resampled[key])

    def drops(self, keys: Sequence[str]) -> Array:
        """The paired drops of several cells, (len(keys), B)."""
        return np.array([self.drop(k) for k in keys])

    def half(self, first: bool) -> NDArray[np.bool_]:
        """The mask (n,) of one half of the images. It depends on the set of image ids alone, not on their order."""
        images = sorted(set(self.image_ids), key=str)
        chosen = set(np.random.default_rng(0).permutation(len(images))[: len(images) // 2].tolist())
        inside = {image: (i in chosen) == first for i, image in enumerate(images)}
        return np.array([inside[i] for i in self.image_ids])

    def only(self, keys: Sequence[str]) -> Draws:
        """The draws of the baseline and of these cells."""
        chosen = [self.baseline, *keys]
        arrays, resampled = ({k: own[k] for k in chosen if k in own} for own in (self.arrays, self.resampled))
        return Draws(self.metric, self.image_ids, arrays, self.baseline, resampled)

    def on(self, images: NDArray[np.bool_]) -> Draws:
        """The same cells on the images of a mask (n,), without resamples."""
        ids = [i for i, keep in zip(self.image_ids, images, strict=True) if keep]
        return Draws(self.metric, ids, {k: a[images] for k, a in self.arrays.items()}, self.baseline, {})


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
    version, n = versions[first["key"]], len(predictions.image_id)
    same = {k: a for k, a in arrays.items() if len(a) == n and versions[k] == version}
    sampled = resample_all(METRICS[metric], predictions.image_id, same) if resampled else {}
    return Draws(METRICS[metric], predictions.image_id, same, first["key"], sampled)


def resample_all(metric: Metric, image_ids: Sequence[Id], arrays: dict[str, Array]) -> dict[str, Array]:
    """{key: the metric in each resample, (B,)}; an array that several cells share is resampled once."""
    drawn = weights(image_ids)
    distinct = {id(a): a for a in arrays.values()}
    width = next(iter(distinct.values())).shape[1] if distinct else 1
    names, step = list(distinct), max(1, COLUMNS_AT_ONCE // width)
    values: dict[int, Array] = {}
    for start in range(0, len(names), step):
        chosen = names[start : start + step]
        sums = drawn.sums(np.concatenate([distinct[n] for n in chosen], axis=1))
        values |= {n: metric.finish(sums[:, i * width : (i + 1) * width]) for i, n in enumerate(chosen)}
    return {key: values[id(a)] for key, a in arrays.items()}
