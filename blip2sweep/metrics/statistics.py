"""All metrics by name, and the likelihood's statistics.

All values are fractions in 0-1, except ``cider`` (0-10, as pycocoevalcap prints it: 1.285, not 128.5), ``nll`` (nats a
token) and ``mean_length`` (words). 0/0, such as the accuracy on an answer type nobody asked about, is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from blip2sweep.errors import UserError
from blip2sweep.metrics import captions, gqa, in_context, letters, mmmu, recall, vqa, yes_no
from blip2sweep.metrics.core import ANSWERS, CAPTIONS, EVERY_TASK, LAST
from blip2sweep.metrics.metric import FloatArray, Metric

__all__ = [
    "BUILT_IN",
    "CORE",
    "LAST",
    "METRICS",
    "FloatArray",
    "Metric",
    "add_metrics",
    "by_order",
    "forget_added",
    "main_metrics",
    "nll_statistics",
]

# The METRICS of each family's module, such as `gqa.METRICS`. One of a name that is there already is left out: a family
# may give the variants of core metrics together with their defaults.
FAMILIES: tuple[tuple[Metric, ...], ...] = (
    captions.METRICS,
    gqa.METRICS,
    in_context.METRICS,
    letters.METRICS,
    mmmu.METRICS,
    recall.METRICS,
    vqa.METRICS,
    yes_no.METRICS,
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in (*CAPTIONS, *ANSWERS, *EVERY_TASK)}
CORE = tuple(METRICS)  # one digest of their versions is in every measurement, so none is ever added here
for _metric in (metric for family in FAMILIES for metric in family):
    METRICS.setdefault(_metric.name, _metric)
BUILT_IN = frozenset(METRICS)


def nll_statistics(nll_sum: Sequence[float], tokens: Sequence[int]) -> dict[str, FloatArray]:
    """Per-sample summed negative log-likelihoods (nats) and token counts, both length n, as ``{"nll": (n, 2)}``."""
    if len(nll_sum) != len(tokens):
        raise ValueError(f"nll_sum has {len(nll_sum)} samples, tokens has {len(tokens)}; give one of each a sample")
    return {"nll": np.column_stack([nll_sum, tokens]).astype(np.float64)}


def add_metrics(metrics: Iterable[Metric]) -> None:
    """Add the metrics of a task from outside to METRICS. Raises UserError where a name is taken."""
    for metric in metrics:
        if metric.name in BUILT_IN or METRICS.get(metric.name, metric).statistic != metric.statistic:
            raise UserError(f"metric {metric.name}: there is one of that name; right: a name of its own")
        METRICS[metric.name] = metric


def forget_added() -> None:
    """Leave only the metrics of this package in METRICS."""
    for name in METRICS.keys() - BUILT_IN:
        del METRICS[name]


def by_order(names: Iterable[str]) -> list[str]:
    """These metrics sorted by `order`, those of one order as METRICS has them. Unknown metrics, and those that no table
    may be about, are left out."""
    place = {name: (metric.order, i) for i, (name, metric) in enumerate(METRICS.items()) if metric.order is not None}
    return sorted({*names} & place.keys(), key=place.__getitem__)


def main_metrics() -> list[str]:
    """The metrics that a table may be about, in their order."""
    return by_order(METRICS)
