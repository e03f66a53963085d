"""Samples grouped by image. All questions of an image change together, so images are counted and resampled."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blip2sweep.metrics.metric import FloatArray


@dataclass(frozen=True, eq=False)
class Images:
    """The image of each of n samples. image: (n,) intp in 0 … count − 1; count: the number of distinct images, m."""

    image: NDArray[np.intp]
    count: int

    def by_image(self, statistics: FloatArray) -> FloatArray:
        """The rows of a statistic array (n, k), summed by image: (m, k). Raises ValueError for another number of
        samples."""
        if len(statistics) != len(self.image):
            raise ValueError(
                f"statistics of {len(statistics)} samples, weights for {len(self.image)}; use the same set"
            )
        order, starts = self._order
        rows = np.asarray(statistics, dtype=np.float64)[order]
        return rows if len(starts) == len(rows) else np.add.reduceat(rows, starts)

    @functools.cached_property
    def _order(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The samples image after image, and where each image begins."""
        order = np.argsort(self.image, kind="stable")
        return order, np.searchsorted(self.image[order], np.arange(self.count))


def images(image_ids: Sequence[Hashable]) -> Images:
    """The images of n samples; the last 8 sample sets are remembered. Raises ValueError without samples."""
    if len(image_ids) == 0:
        raise ValueError("0 samples; an interval needs at least one")
    return _images(tuple(str(image) for image in image_ids))


@functools.lru_cache(maxsize=8)
def _images(image_ids: tuple[str, ...]) -> Images:
    names, image = np.unique(np.array(image_ids), return_inverse=True)
    return Images(image.astype(np.intp), len(names))
