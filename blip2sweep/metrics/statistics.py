"""Every metric as a function of summed per-sample statistics.

A metric is a statistic array ``S`` of shape (n, k), float64, one row a sample, and a ``finish`` that maps sums of its
rows, shape (..., k), to values, shape (...). Summing with weights before ``finish`` is all a bootstrap needs, and it is
exact for corpus metrics (BLEU, METEOR), which are not means of per-sample scores.

All values are fractions in 0-1, except ``cider`` (0-10, as pycocoevalcap prints it: 1.285, not 128.5), ``nll`` (nats a
token) and ``mean_length`` (words). 0/0, such as the accuracy on an answer type nobody asked about, is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from blip2sweep.errors import UserError

FloatArray = NDArray[np.float64]

# Columns of the "meteor" statistic: lengths and function words of candidate and reference, then for the exact, stem,
# synonym and paraphrase module the matched content words and function words of both sides, then the chunks.
METEOR_COLUMNS = 21
# METEOR 1.5, -l en, task "rank" (edu.cmu.meteor.util.Constants).
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
MODULE_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])


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
    a metric that only details another.
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
            return self.finish(statistics)


def nll_statistics(nll_sum: Sequence[float], tokens: Sequence[int]) -> dict[str, FloatArray]:
    """Per-sample summed negative log-likelihoods (nats) and token counts, both length n, as ``{"nll": (n, 2)}``."""
    if len(nll_sum) != len(tokens):
        raise ValueError(f"nll_sum has {len(nll_sum)} samples, tokens has {len(tokens)}; give one of each a sample")
    return {"nll": np.column_stack([nll_sum, tokens]).astype(np.float64)}


def _ratio(
    name: str, statistic: str, columns: tuple[int, int], higher: bool, version: str, worst: float = 0.0, **more: Any
) -> Metric:
    """A metric that is the ratio of two sums."""
    return Metric(name, statistic, _quotient(*columns), higher, version, columns, worst, **more)


def _quotient(numerator: int, denominator: int) -> Callable[[FloatArray], FloatArray]:
    def finish(sums: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return sums[..., numerator] / sums[..., denominator]

    return finish


def _bleu(order: int) -> Callable[[FloatArray], FloatArray]:
    """pycocoevalcap's corpus BLEU; its epsilons are part of the value when nothing matches."""

    def finish(sums: FloatArray) -> FloatArray:
        precisions = (sums[..., :order] + 1e-15) / (sums[..., 4 : 4 + order] + 1e-9)
        brevity = (sums[..., 8] + 1e-15) / (sums[..., 9] + 1e-9)
        penalty = np.exp(1 - 1 / np.minimum(brevity, 1.0))
        return precisions.prod(axis=-1) ** (1 / order) * penalty

    return finish


def _meteor(sums: FloatArray) -> FloatArray:
    """METEOR 1.5's computeMetrics (Denkowski and Lavie, 2014, equations 1-5) on summed statistics."""
    matches = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 4)  # module, (candidate, reference) x (content, function)
    weighted = np.einsum("...mc,m->...c", matches, MODULE_WEIGHTS)
    matched = DELTA * weighted[..., :2] + (1 - DELTA) * weighted[..., 2:]
    function_words = sums[..., 2:4]
    lengths = DELTA * (sums[..., :2] - function_words) + (1 - DELTA) * function_words
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = np.moveaxis(matched / lengths, -1, 0)
        f_mean = 1 / ((1 - ALPHA) / precision + ALPHA / recall)
        fragmentation = sums[..., 20] / (matches.sum(axis=(-2, -1)) / 2)
        score = f_mean * (1 - GAMMA * fragmentation**BETA)
    # As in Java: 0/0 is a score of 0, and a score is never negative.
    return np.maximum(np.nan_to_num(score, nan=0.0), 0.0)


_CAPTIONS = "pycocoevalcap-1.2/ptb-3.4.1"
_VQA = "vqaEval-a013f00/2"  # 2: exact match of a single answer, answer types beyond the official ones

LAST = 1000  # in `order`: the likelihood, which every task may have, is for tables that have nothing else

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in [
        *(Metric(f"bleu_{order}", "bleu", _bleu(order), True, _CAPTIONS) for order in (1, 2, 3, 4)),
        Metric("meteor", "meteor", _meteor, True, f"{_CAPTIONS}/meteor-1.5", per_sample=True),
        _ratio("rouge_l", "rouge_l", (0, 1), True, _CAPTIONS, per_sample=True),
        _ratio("cider", "cider", (0, 1), True, _CAPTIONS, label="CIDEr", per_sample=True, order=0),
        _ratio("vqa_accuracy", "vqa", (0, 1), True, _VQA, label="VQA accuracy", per_sample=True, order=1),
        _ratio("vqa_accuracy_yes_no", "vqa", (2, 3), True, _VQA),
        _ratio("vqa_accuracy_number", "vqa", (4, 5), True, _VQA),
        _ratio("vqa_accuracy_other", "vqa", (6, 7), True, _VQA),
        _ratio("vqa_accuracy_unlisted", "vqa", (8, 9), True, _VQA),
        _ratio("nll", "nll", (0, 1), False, "1", label="NLL", unit="nats a token", of_output=False, order=LAST),
        _ratio("empty_rate", "health", (0, 2), False, "1", worst=1.0),
        _ratio("mean_length", "health", (1, 2), True, "1"),
    ]
}
BUILT_IN = frozenset(METRICS)


def add_metrics(metrics: Iterable[Metric]) -> None:
    """Add the metrics of a task from outside to METRICS. Raises UserError where a name is taken."""
    for metric in metrics:
        if metric.name in BUILT_IN or METRICS.get(metric.name, metric).statistic != metric.statistic:
            raise UserError(f"metric {metric.name}: there is one of that name; right: a name of its own")
        METRICS[metric.name] = metric


def by_order(names: Iterable[str]) -> list[str]:
    """These metrics sorted by `order`. Unknown metrics, and those that no table may be about, are left out."""
    known = {n: METRICS[n].order for n in dict.fromkeys(names) if n in METRICS}
    return sorted((n for n, order in known.items() if order is not None), key=lambda n: known[n] or 0)


def main_metrics() -> list[str]:
    """The metrics that a table may be about, in their order."""
    return by_order(METRICS)
