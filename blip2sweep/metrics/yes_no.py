"""Yes or no: accuracy, precision, recall, F1 and the share of "yes", as POPE's evaluation computes them.

Two rules read an answer:
- `official` follows evaluate.py of github.com/AoiDragon/POPE (commit f3ec604), which LLaVA's eval_pope.py copies. What
  stands before the first period counts, without commas, split at single spaces. With a word "No", "not" or "no" it is
  a no. **Everything else is a yes**: "", "NO", "no!" and "never" too.
- `lmms` follows lmms-eval 0.7.3 (tasks/pope/utils.py). The lower-cased answer without the blanks around it is "yes" or
  "no"; any other answer is wrong, and counts neither as found nor as missed. Its yes ratio is that of the **labels**.

Where nothing is counted, the official code divides by zero, lmms-eval gives 0, and so does this module. F1 of one
sample would call a right no wrong: a sample alone has its accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from blip2sweep.metrics.metric import FloatArray, Metric, quotient, ratio
from blip2sweep.metrics.variants import with_variants

YES, NO = "yes", "no"
LABELS = (YES, NO)
CATEGORIES = ("random", "popular", "adversarial")  # POPE's three files
SCORING = {"rule": ("official", "lmms")}
STATISTIC = "yes_no"
VERSION = "pope-f3ec604/lmms-eval-0.7.3/1"
# Columns: those of all samples, then those of each category. Each is a pair of what is counted and of how many.
ACCURACY, PRECISION, RECALL, F1, SAID_YES = range(0, 10, 2)
WIDTH = 10
RIGHT = quotient(ACCURACY, ACCURACY + 1)


def read_answer(text: str, rule: str = "official") -> str | None:
    """What an answer says by a rule: "yes", "no", or None for neither."""
    if rule == "lmms":
        said = text.lower().strip()
        return said if said in LABELS else None
    words = text.split(".")[0].replace(",", "").split(" ")
    return NO if "No" in words or "not" in words or "no" in words else YES


def yes_no_statistics(
    answers: Sequence[str], labels: Sequence[str], categories: Sequence[str | None], rule: str = "official"
) -> FloatArray:
    """(n, 40), float64: pairs of sums for accuracy, precision, recall, F1 and yes ratio, of all and of each category.

    answers: n raw answers. labels: n times "yes" or "no". categories: n of CATEGORIES; of others, all samples alone.
    """
    said = np.array([read_answer(text, rule) for text in answers], dtype=object)
    truth = np.asarray(labels, dtype=object) == YES
    yes, no = said == YES, said == NO
    found, missed = yes & truth, no & truth
    positive = yes.astype(np.float64) + found + missed  # 2 TP + FP + FN
    counted = truth if rule == "lmms" else yes
    ones = np.ones(len(said))
    right = found | (no & ~truth)
    columns = [right, ones, found, yes, found, found | missed, 2.0 * found, positive, counted, ones]
    whole = np.column_stack(columns).astype(np.float64)
    kinds = np.asarray(categories, dtype=object)
    return np.concatenate([whole, *(whole * (kinds == c)[:, None] for c in CATEGORIES)], axis=1)


def _rate(pair: int) -> Callable[[FloatArray], FloatArray]:
    """A pair's share. 0 where nothing was counted although there are samples; NaN where there are none."""
    samples = pair - pair % WIDTH + ACCURACY + 1

    def finish(sums: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = sums[..., pair] / sums[..., pair + 1]
        return np.where((sums[..., pair + 1] == 0) & (sums[..., samples] > 0), 0.0, rate)

    return finish


def _mean_f1(sums: FloatArray) -> FloatArray:
    """The mean of the F1 of the categories that have samples; F1 of all samples where none has."""
    firsts = [WIDTH * (i + 1) for i in range(len(CATEGORIES))]
    rates = np.stack([_rate(first + F1)(sums) for first in firsts])
    there = np.stack([sums[..., first + ACCURACY + 1] > 0 for first in firsts])
    count = there.sum(axis=0)
    mean = np.where(there, rates, 0.0).sum(axis=0) / np.maximum(count, 1)
    return np.where(count > 0, mean, _rate(F1)(sums))


def _of(first: int, end: str, told: str) -> tuple[Metric, ...]:
    """The metrics of all samples, or of a category. first: its first column. end, told: what names and labels end in."""
    accuracy, said_yes = ((first + pair, first + pair + 1) for pair in (ACCURACY, SAID_YES))
    rated = (
        # no `ratio`: what they are shares of changes with the answers
        Metric(
            f"yes_no_{name.lower()}{end}", STATISTIC, _rate(first + pair), True, VERSION, label=f"{name}{told}",
            alone=quotient(*accuracy),
        )
        for name, pair in (("F1", F1), ("precision", PRECISION), ("recall", RECALL))
    )  # fmt: skip
    return (
        ratio(
            f"yes_no_accuracy{end}", STATISTIC, accuracy, True, VERSION, label=f"yes/no accuracy{told}",
            per_sample=not end, order=None if end else 21,
        ),
        *rated,
        ratio(f"yes_ratio{end}", STATISTIC, said_yes, True, VERSION, label=f"yes ratio{told}"),
    )  # fmt: skip


_PLAIN = (
    Metric("yes_no_f1_mean", STATISTIC, _mean_f1, True, VERSION, label="F1, mean of the files", order=20, alone=RIGHT),
    *_of(0, "", ""),
    *(m for i, c in enumerate(CATEGORIES, 1) for m in _of(WIDTH * i, f"_{c}", f", {c}")),
)
METRICS: tuple[Metric, ...] = with_variants(_PLAIN, SCORING)


def scored(categories: Sequence[object]) -> list[str]:
    """The metrics that samples of these categories have: of each category that is there, and of all."""
    ends = ["", *(f"_{c}" for c in CATEGORIES if c in categories)]
    names = (f"yes_no_{name}" for name in ("accuracy", "f1", "precision", "recall"))
    own = [*names, "yes_ratio"]
    return ["yes_no_f1_mean", *(name + end for end in ends for name in own)]
