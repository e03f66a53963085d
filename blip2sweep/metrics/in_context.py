"""Metrics of answers that are read from a chat model's replies: those of any answer, and how often a reply was none."""

from __future__ import annotations

import numpy as np

from blip2sweep.metrics.metric import FloatArray, ratio
from blip2sweep.metrics.variants import Declared, with_variants
from blip2sweep.metrics.vqa import METRICS as ANSWERS

PARSE: Declared = {"parse": ("published", "sane")}  # the rules by which an answer is read
FALLBACK = ratio(
    "fallback_rate", "fallback", (0, 1), False, "1", label="own answer used", unit="share of questions", per_sample=True
)
METRICS = with_variants((*ANSWERS, FALLBACK), PARSE)


def fallback_statistics(taken: list[bool]) -> FloatArray:
    """(n, 2) float64 of whether the vision-language model's own answer was taken in place of each reply."""
    return np.column_stack([np.array(taken, np.float64), np.ones(len(taken))])
