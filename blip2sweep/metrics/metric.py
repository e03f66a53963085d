"""A metric: a function of summed per-sample statistics, with how people write it.

A metric is a statistic array ``S`` of shape (n, k), float64, one row a sample, and a ``finish`` that maps sums of its
rows, shape (..., k), to values, shape (...). Summing with weights before ``finish`` is all a bootstrap needs, and it is
exact for corpus metrics (BLEU, METEOR), which are not means of per-sample scores.

Families of metrics import this module, not statistics.py, which imports them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One column of the table.

    name: the column. statistic: the statistic array that it reads; several metrics may share one. finish: maps sums of
    that array's rows, (..., k), to values, (...). higher_is_better: gives the sign of a drop. version: of the scorer;
    it changes with anything that can change a value. ratio: the two columns whose sums are divided, where the metric is
    a ratio; the second is the weight of a sample. worst: the least score of a broken image, where lower is better and a
    good baseline does not bound it.

    label: the name as people write it. unit: of a difference. per_sample: whether a value has a meaning for one sample;
    it is the value of a set with this sample alone (`each`). of_output: whether the value follows from the output; a
    likelihood is of the references. order: the rank among the metrics that a table may be about, lowest first; None for
    a metric that only details another. plain: of a variant, the metric of the default settings (variants.py).
    interval: whether resampled images give its interval; false of a value that is no function of sums over images,
    which each row then holds. alone: finishes the sums of one sample in `each`, where `finish` says nothing about one.
    """

    name: str
    statistic: str
    finish: Callable[[FloatArray], FloatArray]
    higher_is_better: bool
    version: str
    ratio: tuple[int, int] | None = None
    worst: float = 0.0
    label: str = ""
    unit: str = ""
    per_sample: bool = False
    of_output: bool = True
    order: int | None = None
    plain: str = ""
    interval: bool = True
    alone: Callable[[FloatArray], FloatArray] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.name)
        object.__setattr__(self, "unit", self.unit or self.label)

    @property
    def sign(self) -> int:
        """1 where a higher value is better, −1 where a lower one is."""
        return 1 if self.higher_is_better else -1

    @overload
    def drop(self, baseline: float, value: float) -> float: ...
    @overload
    def drop(self, baseline: FloatArray, value: FloatArray) -> FloatArray: ...
    def drop(self, baseline: float | FloatArray, value: float | FloatArray) -> float | FloatArray:
        """How much worse a value is than the baseline's, of numbers or arrays; positive is worse for every metric."""
        return self.sign * (baseline - value)

    def retained(self, baseline: Any, drop: Any) -> Any:
        """The value as a share of the baseline's, from the drop.

        Above 1 where lower is better and the cell is worse.
        """
        return 1 - self.sign * drop / baseline

    def value(self, statistics: FloatArray) -> float:
        """The metric of a whole sample set, from its statistic array (n, k)."""
        return float(self.finish(np.asarray(statistics, dtype=np.float64).sum(axis=0)))

    def each(self, statistics: FloatArray) -> FloatArray:
        """The metric of each sample alone, (n,), from statistics (n, k). NaN where a sample has nothing to score."""
        with np.errstate(all="ignore"):
            return (self.alone or self.finish)(statistics)


def ratio(
    name: str, statistic: str, columns: tuple[int, int], higher: bool, version: str, worst: float = 0.0, **more: Any
) -> Metric:
    """A metric that is the ratio of two sums."""
    return Metric(name, statistic, quotient(*columns), higher, version, columns, worst, **more)


def quotient(numerator: int, denominator: int) -> Callable[[FloatArray], FloatArray]:
    """A finish that divides the sum of one column by that of another. 0/0 is NaN."""

    def finish(sums: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return sums[..., numerator] / sums[..., denominator]

    return finish
