"""Accuracy, over all samples and by group, as one statistic array."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from blip2sweep.metrics.statistics import FloatArray, Metric


def grouped(scores: FloatArray, masks: FloatArray) -> FloatArray:
    """(n, 2 + 2g): score and 1, then both for each group, 0 and 0 where a sample is not of the group.

    scores: (n,). masks: (n, g), 1 where a sample is of the group. A sample may be of several groups, or of none.
    """
    whole = np.column_stack([scores, np.ones_like(scores)])
    pairs = np.stack([scores[:, None] * masks, masks], axis=-1)
    return np.concatenate([whole, pairs.reshape(len(scores), -1)], axis=1)


def group_metrics(
    name: str, statistic: str, groups: Mapping[str, str], version: str, label: str, order: int
) -> tuple[Metric, ...]:
    """`name` over all samples, and `name_GROUP` of each group, of a statistic as `grouped` makes it.

    groups: {group: its label}.
    """
    whole = share(name, statistic, 0, version, label=label, per_sample=True, order=order)
    of_group = (
        share(f"{name}_{group}", statistic, 2 * i, version, label=f"{label}, {own}")
        for i, (group, own) in enumerate(groups.items(), 1)
    )
    return (whole, *of_group)


def share(
    name: str,
    statistic: str,
    column: int,
    version: str,
    *,
    label: str = "",
    higher_is_better: bool = True,
    per_sample: bool = False,
    order: int | None = None,
) -> Metric:
    """The sum of a column as a share of the sum of the next one."""
    return Metric(
        name,
        statistic,
        quotient(column, column + 1),
        higher_is_better,
        version,
        (column, column + 1),
        0.0 if higher_is_better else 1.0,
        label=label,
        per_sample=per_sample,
        order=order,
    )


def quotient(numerator: int, denominator: int) -> Callable[[FloatArray], FloatArray]:
    """One sum divided by another, (..., k) -> (...); 0/0 is NaN."""

    def finish(sums: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return sums[..., numerator] / sums[..., denominator]

    return finish


def present(names: Sequence[str], masks: FloatArray) -> tuple[str, ...]:
    """The groups, of g names, that some of the n samples are of. masks: (n, g)."""
    return tuple(name for name, some in zip(names, masks.any(axis=0), strict=True) if some)
