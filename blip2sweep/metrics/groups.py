"""Accuracy, over all samples and by group, as one statistic array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from blip2sweep.metrics.metric import FloatArray, Metric, ratio


def grouped(scores: FloatArray, masks: FloatArray) -> FloatArray:
    """(n, 2 + 2g): score and 1, then both for each group, 0 and 0 where a sample is not of the group.

    scores: (n,). masks: (n, g), 1 where a sample is of the group. A sample may be of several groups, or of none.
    """
    whole = np.column_stack([scores, np.ones_like(scores)])
    pairs = np.stack([scores[:, None] * masks, masks], axis=-1)
    return np.concatenate([whole, pairs.reshape(len(scores), 2 * masks.shape[1])], axis=1)


def group_metrics(
    name: str, statistic: str, groups: Mapping[str, str], version: str, label: str, order: int
) -> tuple[Metric, ...]:
    """`name` over all samples, and `name_GROUP` of each group, of a statistic as `grouped` makes it.

    groups: {group: its label}.
    """
    whole = ratio(name, statistic, (0, 1), True, version, label=label, per_sample=True, order=order)
    of_group = (
        ratio(f"{name}_{group}", statistic, (2 * i, 2 * i + 1), True, version, label=f"{label}, {own}")
        for i, (group, own) in enumerate(groups.items(), 1)
    )
    return (whole, *of_group)


def scored(name: str, groups: Sequence[str], masks: FloatArray) -> list[str]:
    """The names of `group_metrics`: of all samples, and of the groups, of g, that some of n samples are of.

    masks: (n, g).
    """
    return [name, *(f"{name}_{own}" for own, some in zip(groups, masks.max(axis=0).tolist(), strict=True) if some)]
