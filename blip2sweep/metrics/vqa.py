"""VQA accuracy by ten answers, as each copy of the evaluation has it, and by exact match where a question has one.

All rules average min(1, matches/3) over leaving out each of people's answers in turn. They differ in what is compared:

- **official**: vqaEval.py of github.com/GT-Vision-Lab/VQA (commit a013f00). Answer and references are normalised only
  where the references disagree. Where all ten agree the comparison is literal, so "Yes." against ten times "yes" counts
  as wrong (the authors confirm it in their issue 14).
- **lavis**: lavis/common/vqa_tools/vqa_eval.py of github.com/salesforce/LAVIS, an older version of that file. The answer
  is always normalised. References lose their marks where they disagree, and nothing else: they keep their case, number
  words and articles, so that "two" or "the dog" among them can never be matched.
- **evalai**: `TextVQAAccuracyEvaluator` of github.com/facebookresearch/mmf. Both sides go through the EvalAI processor
  always.

Copies that compare references as objects, as the official one does, leave out all equal ones together; official files
number their ten answers, so that no two are equal. Here answers are counted by their place.

Leaving one out of n < 4 answers leaves too few to reach 1: the most is (n - 1)/3. Of one answer nothing would be left, so
that no model could ever be right: there the accuracy is 1 where both are the same after the rule's normalisation of an
answer, else 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from blip2sweep.metrics.core import ANSWERS
from blip2sweep.metrics.metric import FloatArray, Metric, ratio
from blip2sweep.metrics.variants import Declared, with_variants
from blip2sweep.metrics.vqa_words import evalai_answer, normalize_answer, one_line, without_marks

RULES = ("official", "lavis", "evalai")
ANSWER_TYPES = ("yes/no", "number", "other")
UNANSWERABLE = "unanswerable"
LEAVE_ONE_OUT, EXACT_MATCH = "leave_one_out", "exact_match"

# The scoring settings of answers: whose rule, and whether nouns and verbs of the model's answer become lemmas.
SETTINGS: Declared = {"rule": RULES, "lemmatize": ("none", "spacy")}
_VERSIONS = {"official": ANSWERS[0].version, "lavis": "lavis-200ac17/1", "evalai": "evalai-c46b3b3/1"}
_OF_UNANSWERABLE = ratio("vqa_accuracy_unanswerable", "vqa_unanswerable", (0, 1), True, ANSWERS[0].version)


def _versioned(metric: Metric) -> Metric:
    """The metric with the version of its own rule."""
    rule = next((r for r in RULES[1:] if f"_{r}" in metric.name), RULES[0])
    lemmas = "/lemmas-1" if metric.name.endswith("_spacy") else ""
    return replace(metric, version=_VERSIONS[rule] + lemmas)


METRICS = tuple(map(_versioned, with_variants((*ANSWERS, _OF_UNANSWERABLE), SETTINGS)))


def vqa_accuracy(answer: str, references: Sequence[str], rule: str = "official") -> float:
    """The accuracy (0-1) of one answer by a rule of RULES.

    references: the human answers to the question, ten in VQAv2, at least one. Of a single one: 1 or 0, by exact match
    of the normalised texts.
    """
    if len(references) == 1:
        normal = evalai_answer if rule == "evalai" else _official_answer
        return float(normal(answer) == normal(references[0]))
    said, truths = _COMPARED[rule](answer, references)
    return _left_out(tuple(truth == said for truth in truths))


def rule_of(references: Iterable[Sequence[str]]) -> str:
    """How questions with these numbers of answers are scored: LEAVE_ONE_OUT, EXACT_MATCH, or both with a count."""
    single = [len(truths) == 1 for truths in references]
    if all(single) or not any(single):
        return EXACT_MATCH if single and single[0] else LEAVE_ONE_OUT
    return f"{EXACT_MATCH}:{sum(single)},{LEAVE_ONE_OUT}:{len(single) - sum(single)}"


def vqa_statistics(
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    answer_types: Sequence[str | None],
    rule: str = "official",
    unanswerable: bool = False,
) -> dict[str, FloatArray]:
    """``{"vqa": (n, 10)}``, float64: accuracy and 1, then both for yes/no, number, other and any other type (0 and 0 if
    not the type). Where a question is of the type "unanswerable", also ``{"vqa_unanswerable": (n, 2)}`` for it alone.

    answers: n raw answers. references: n lists of human answers. answer_types: n words, None where nobody said, which
    counts for no type. unanswerable: have that second statistic in any case. Raises ValueError if the lengths differ or a question has no reference.
    """
    _check(answers, references, answer_types)
    told = zip(answers, references, strict=True)
    accuracy = np.array([vqa_accuracy(answer, truths, rule) for answer, truths in told], dtype=np.float64)
    kinds = np.asarray(answer_types, dtype=object)
    known = [np.array(kinds == kind, dtype=np.float64) for kind in (*ANSWER_TYPES, None)]
    masks = [np.ones(len(accuracy)), *known[:-1], 1 - np.sum(known, axis=0)]
    found = {"vqa": _pairs(accuracy, masks)}
    if unanswerable or UNANSWERABLE in answer_types:
        found["vqa_unanswerable"] = _pairs(accuracy, [np.array(kinds == UNANSWERABLE, dtype=np.float64)])
    return found


def _pairs(accuracy: FloatArray, masks: Sequence[FloatArray]) -> FloatArray:
    """(n, 2 m): for each mask (n,) the accuracy inside it, and the mask."""
    return np.column_stack([column for mask in masks for column in (accuracy * mask, mask)])


# ---- what each rule compares


def _official(answer: str, references: Sequence[str]) -> tuple[str, list[str]]:
    said, truths = one_line(answer), [one_line(reference) for reference in references]
    if len(set(truths)) > 1:
        return normalize_answer(said), [normalize_answer(truth) for truth in truths]
    return said, truths


def _lavis(answer: str, references: Sequence[str]) -> tuple[str, list[str]]:
    disagree = len(set(references)) > 1
    return _official_answer(answer), [without_marks(truth) if disagree else truth for truth in references]


def _evalai(answer: str, references: Sequence[str]) -> tuple[str, list[str]]:
    return evalai_answer(answer), [evalai_answer(truth) for truth in references]


def _official_answer(text: str) -> str:
    return normalize_answer(one_line(text))


_COMPARED: dict[str, Callable[[str, Sequence[str]], tuple[str, list[str]]]] = {
    "official": _official,
    "lavis": _lavis,
    "evalai": _evalai,
}


@lru_cache(2**12)
def _left_out(matches: tuple[bool, ...]) -> float:
    """min(1, matches/3), averaged over leaving out each reference in turn. matches: which references the answer
    equals."""
    return sum(min(1.0, (sum(matches) - match) / 3) for match in matches) / len(matches)


def _check(answers: Sequence[str], references: Sequence[Sequence[str]], answer_types: Sequence[str | None]) -> None:
    if not len(answers) == len(references) == len(answer_types):
        lengths = f"{len(answers)} answers, {len(references)} references, {len(answer_types)} answer types"
        raise ValueError(f"{lengths}; give one of each a question")
    for index, truths in enumerate(references):
        if isinstance(truths, str) or len(truths) == 0:
            raise ValueError(f"references[{index}] is {truths!r}; give a list of human answers")
