"""The metrics of captions and of answers, and those that every task has."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from blip2sweep.metrics.metric import FloatArray, Metric, ratio

# Columns of the "meteor" statistic: lengths and function words of candidate and reference, then for the exact, stem,
# synonym and paraphrase module the matched content words and function words of both sides, then the chunks.
METEOR_COLUMNS = 21
# METEOR 1.5, -l en, task "rank" (edu.cmu.meteor.util.Constants).
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
MODULE_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])


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

CAPTIONS: tuple[Metric, ...] = (
    *(Metric(f"bleu_{order}", "bleu", _bleu(order), True, _CAPTIONS) for order in (1, 2, 3, 4)),
    Metric("meteor", "meteor", _meteor, True, f"{_CAPTIONS}/meteor-1.5", per_sample=True),
    ratio("rouge_l", "rouge_l", (0, 1), True, _CAPTIONS, per_sample=True),
    ratio("cider", "cider", (0, 1), True, _CAPTIONS, label="CIDEr", per_sample=True, order=0),
)
ANSWERS: tuple[Metric, ...] = (
    ratio("vqa_accuracy", "vqa", (0, 1), True, _VQA, label="VQA accuracy", per_sample=True, order=1),
    ratio("vqa_accuracy_yes_no", "vqa", (2, 3), True, _VQA),
    ratio("vqa_accuracy_number", "vqa", (4, 5), True, _VQA),
    ratio("vqa_accuracy_other", "vqa", (6, 7), True, _VQA),
    ratio("vqa_accuracy_unlisted", "vqa", (8, 9), True, _VQA),
)
EVERY_TASK: tuple[Metric, ...] = (
    ratio("nll", "nll", (0, 1), False, "1", label="NLL", unit="nats a token", of_output=False, order=LAST),
    ratio("empty_rate", "health", (0, 2), False, "1", worst=1.0),
    ratio("mean_length", "health", (1, 2), True, "1"),
)
