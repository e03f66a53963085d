"""The letter of an option in a generated answer, and options by their likelihood; accuracy as ScienceQA reports it.

Two rules read a letter:
- `llava` follows eval_science_qa.py of github.com/haotian-liu/LLaVA (version 1.5): the letter alone, "X. " at the
  beginning, or exactly one "The answer is X" with a character behind it. Anything else is wrong; nothing is guessed.
- `lmms` follows lmms-eval 0.7.3 (tasks/scienceqa/utils.py): the letter alone in either case, or a capital and a period
  at the beginning, whatever follows.

Options are ranked by the likelihood that a model gives their text: by its `sum` over tokens, or by its `mean`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from blip2sweep.metrics.groups import group_metrics
from blip2sweep.metrics.metric import Metric, ratio
from blip2sweep.metrics.variants import with_variants

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST = 5  # options of a ScienceQA question; LLaVA's script knows no further letter
_SENTENCE = re.compile(r"The answer is ([A-Z]).")

# The categories of ScienceQA's evaluate_acc.py. Of its context types, IMG is every sample here and NO none of them.
GROUPS = {
    "nat": "natural science",
    "soc": "social science",
    "lan": "language science",
    "txt": "with a text",
    "g1_6": "grades 1-6",
    "g7_12": "grades 7-12",
}
LETTER_SCORING = {"rule": ("llava", "lmms")}
CHOICE_SCORING = {"option_score": ("sum", "mean")}
VERSION = "llava-1.5/lmms-eval-0.7.3/1"


def read_letter(text: str, options: int, rule: str = "llava") -> int | None:
    """The number of the option that an answer names, from 0 on; None where it names none of them."""
    letter = _lmms(text.strip()) if rule == "lmms" else _llava(text, max(options, MOST))
    place = LETTERS.lower().find(letter) if len(letter) == 1 else -1
    return place if 0 <= place < options else None


def _llava(text: str, known: int) -> str:
    """The lower-cased letter, or an empty text. known: how many letters stand for an option anywhere."""
    letters = tuple(LETTERS[:known])
    if text in letters:
        return text.lower()
    if len(text) >= 3 and text[0] in letters and text[1:3] == ". ":
        return text[0].lower()
    found = _SENTENCE.findall(text)
    return str(found[0]).lower() if len(found) == 1 else ""


def _lmms(text: str) -> str:
    if len(text) >= 2 and text[0].isupper() and text[1] == ".":
        return text[0].lower()
    return text.lower()


def best_option(nll: Sequence[float | None], tokens: Sequence[int], score: str = "sum") -> int | None:
    """The number of the likeliest option, the first of equals; None where no option has a finite likelihood."""
    values = [float("inf") if x is None else x for x in nll]
    if score == "mean":
        values = [x / max(n, 1) for x, n in zip(values, tokens, strict=True)]
    best = min(range(len(values)), key=values.__getitem__, default=None)
    return None if best is None or not np.isfinite(values[best]) else best


def groups_of(details: Mapping[str, object]) -> list[bool]:
    """Whether a sample is of each of GROUPS, from `subject`, `hint` and `grade` of its details."""
    subject, grade = str(details.get("subject") or ""), str(details.get("grade") or "")
    year = int(grade.removeprefix("grade")) if re.fullmatch(r"grade\d{1,2}", grade) else 0
    by_subject = [subject == GROUPS[name] for name in ("nat", "soc", "lan")]
    return [*by_subject, bool(details.get("hint")), 1 <= year <= 6, 7 <= year <= 12]


_ACCURACY = group_metrics("option_accuracy", "option", GROUPS, VERSION, "option accuracy", 22)
_UNREAD = ratio("unread_rate", "unread", (0, 1), False, VERSION, 1.0, label="answers without a letter")
METRICS: tuple[Metric, ...] = (
    *with_variants((*_ACCURACY, _UNREAD), LETTER_SCORING),
    *with_variants(_ACCURACY, CHOICE_SCORING),
)
