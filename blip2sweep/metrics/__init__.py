"""Metrics: the scores of outputs, and their intervals. No torch here.

Every metric is a function of weighted sums of per-sample statistics (statistics.py), so that one rule for intervals
(intervals.py) and one bootstrap (bootstrap.py) serve them all::

    scorer = CaptionScorer(references)                    # tokenises and counts the references once
    base, cell = scorer.statistics(captions_of_baseline), scorer.statistics(captions_of_cell)
    cider = METRICS["cider"]
    cider.value(cell["cider"])                            # 1.26
    paired_drop(cider, base["cider"], cell["cider"], images(image_ids))  # Drop(drop=0.025, low=0.015, high=0.035)
"""

from blip2sweep.metrics.bootstrap import Weights, drop_samples, interval, resample, weights
from blip2sweep.metrics.captions import CAPTION_METRICS, CaptionScorer
from blip2sweep.metrics.health import health_statistics, same_as_baseline
from blip2sweep.metrics.images import Images, images
from blip2sweep.metrics.intervals import (
    Drop,
    Kept,
    changed_images,
    few_changed,
    fewest_images,
    kept,
    paired_drop,
    student_factor,
    unseen,
)
from blip2sweep.metrics.java import JavaError
from blip2sweep.metrics.meteor import Meteor
from blip2sweep.metrics.score import score_file, values
from blip2sweep.metrics.statistics import METRICS, Metric, nll_statistics
from blip2sweep.metrics.vqa import ANSWER_TYPES, normalize_answer, rule_of, vqa_accuracy, vqa_statistics

__all__ = [
    "ANSWER_TYPES",
    "CAPTION_METRICS",
    "METRICS",
    "CaptionScorer",
    "Drop",
    "Images",
    "JavaError",
    "Kept",
    "Meteor",
    "Metric",
    "Weights",
    "changed_images",
    "drop_samples",
    "few_changed",
    "fewest_images",
    "health_statistics",
    "images",
    "interval",
    "kept",
    "nll_statistics",
    "normalize_answer",
    "paired_drop",
    "resample",
    "rule_of",
    "same_as_baseline",
    "score_file",
    "student_factor",
    "unseen",
    "values",
    "vqa_accuracy",
    "vqa_statistics",
    "weights",
]
