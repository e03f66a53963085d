"""The cells of a screening, and what is known of them: see screening.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from blip2sweep.metrics import Images, Metric
from blip2sweep.metrics.intervals import counted

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Rows = NDArray[np.intp]
UNSEEN = 0.1  # images that may break, of those a cell has not seen


class Seen(NamedTuple):
    """What is known of a cell that ran. kept: its share of the baseline. error: the standard error of that, 0 of a whole
    cell. images: how many it saw."""

    kept: float
    error: float
    images: int

    @property
    def whole(self) -> bool:
        return self.error == 0


def seen_of(metric: Metric, cell: Array, baseline: Array, images: Images | None, of: int | None) -> Seen:
    """What is known of a cell that saw some of `of` images; None: it saw all.

    cell, baseline: (n, k) statistics of the same samples; images: which belong to which image. The error is that of a
    ratio, by the delta method, of images drawn without return. It is that of a break of a tenth of an unseen image at
    least: a cell that changed nothing yet may.
    """
    base, own = counted(metric, baseline, cell, images)
    n, kept = len(base), metric.value(cell) / metric.value(baseline)
    if of is None or metric.ratio is None:
        return Seen(kept, 0.0, n)
    score = metric.ratio[0]
    off = own[:, score] - kept * base[:, score]
    error = np.sqrt(off @ off / max(n - 1, 1) / n * (1 - n / of)) / base[:, score].mean()
    return Seen(kept, max(float(error), UNSEEN / n), n)


class Family(NamedTuple):
    """Cells that predict each other. rows: of the grid. noise: (rows, groups). groups: the family of each group."""

    rows: Rows
    noise: Array
    groups: Sequence[str]


@dataclass(frozen=True)
class Grid:
    """The cells to choose from. sizes, seconds: (cells,), of the whole model and of a run on all images. base: the size
    of the baseline. families: of the cells that can be predicted; the others are all looked at."""

    sizes: Array
    seconds: Array
    base: float
    families: Sequence[Family]

    @property
    def smaller(self) -> Mask:
        """The cells that are smaller than the baseline: others save nothing, and are not run."""
        mask: Mask = self.sizes < self.base
        return mask

    def best(self, values: Array, among: Mask) -> Array:
        """For each cell the best of `values` (cells,) among the cells of a mask that are at most as large, and 1 where the
        baseline is; 0 where there is none."""
        own = np.flatnonzero(among)
        sizes, found = np.append(self.sizes[own], self.base), np.append(values[own], 1.0)
        order = np.argsort(sizes, kind="stable")
        best = np.append(0.0, np.maximum.accumulate(found[order]))
        return best[np.searchsorted(sizes[order], self.sizes, side="right")]


@dataclass
class Belief:
    """What each cell keeps, as far as is known: mean and standard deviation, (cells,) each. 0 deviation: it is whole."""

    mean: Array
    deviation: Array

    def upper(self, deviations: float | Array) -> Array:
        """The upper end of what each cell keeps."""
        return self.mean + deviations * self.deviation


def improvement(belief: Belief, best: Array) -> Array:
    """By how much each cell is expected to be better than `best`, counting 0 where it is not (expected improvement:
    Mockus, 1975; Jones, Schonlau and Welch, 1998), (cells,)."""
    deviation = np.maximum(belief.deviation, 1e-9)
    z = (belief.mean - best) / deviation
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    gained: Array = deviation * (density + z * ndtr(z))
    return np.maximum(gained, 0)
