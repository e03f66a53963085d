"""The metric of many cells in every resample of the images, from one weight matrix that all cells share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from blip2sweep.metrics import Metric, Weights, weights
from blip2sweep.metrics.prefix import carried
from blip2sweep.rows import Id

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
K = TypeVar("K", str, bytes)
COLUMNS_AT_ONCE = 4096


def resample_all(
    metric: Metric, image_ids: Sequence[Id], arrays: dict[str, Array], baseline: str, seen: Mapping[str, Mask]
) -> dict[str, Array]:
    """{key: the metric in each resample, (B,)}; an array that several cells share is resampled once.

    All cells share the weights of all images. A cell that stopped keeps in each resample what it keeps of the baseline
    with the weights of its own images.
    """
    drawn, whole = weights(image_ids), {k: a for k, a in arrays.items() if k not in seen}
    sets = {m.tobytes(): m for m in seen.values()}
    padded = {k: _padded(arrays[k], m) for k, m in seen.items()}
    bases = {name: np.where(mask[:, None], arrays[baseline], 0.0) for name, mask in sets.items()}
    values = _finished(metric, drawn, whole)
    own, base = _finished(metric, drawn, padded), _finished(metric, drawn, bases)
    return values | {k: carried(metric, own[k], base[m.tobytes()], values[baseline]) for k, m in seen.items()}


def _finished(metric: Metric, drawn: Weights, arrays: Mapping[K, Array]) -> dict[K, Array]:
    """{name: the metric in each resample, (B,)} of statistics of all samples, (n, k)."""
    distinct = {id(a): a for a in arrays.values()}
    width = next(iter(distinct.values())).shape[1] if distinct else 1
    names, step = list(distinct), max(1, COLUMNS_AT_ONCE // width)
    values: dict[int, Array] = {}
    for start in range(0, len(names), step):
        chosen = names[start : start + step]
        sums = drawn.sums(np.concatenate([distinct[n] for n in chosen], axis=1))
        values |= {n: metric.finish(sums[:, i * width : (i + 1) * width]) for i, n in enumerate(chosen)}
    return {key: values[id(a)] for key, a in arrays.items()}


def _padded(array: Array, mask: Mask) -> Array:
    """The statistics of all samples, those of samples that a cell has not being 0: they weigh nothing in a sum."""
    found = np.zeros((len(mask), array.shape[1]))
    found[mask] = array
    return found
