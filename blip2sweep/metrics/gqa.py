"""GQA: accuracy by exact match, by type of question, consistency, validity, plausibility and distribution.

Follows eval.py of GQA (cs.stanford.edu/people/dorarad/gqa, eval.zip), less grounding, which needs attention maps. Four
rules say when an answer is right:
- official: both are the same text.
- lavis: the same after VQA's normalisation of both (LAVIS, tasks/vqa.py, GQATask). Its earliest releases normalised the
  answer alone.
- llava: full stops at the end removed and lower-cased, then as official (LLaVA, scripts/convert_gqa_for_eval.py).
- lmms: both lower-cased and without ASCII punctuation, spaces kept (lmms-eval, `exact_match` as tasks/gqa configures it).

Questions that are not balanced count for consistency alone. Consistency is a sum over questions: each correct one brings
the share of its entailed questions that are answered correctly. They are of its own image, so intervals over images hold.
The distribution is no sum: its chi-square has the squares of counts over all images. Its value has no interval.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from blip2sweep.metrics.metric import FloatArray, Metric, quotient, ratio
from blip2sweep.metrics.variants import with_variants
from blip2sweep.metrics.vqa import normalize_answer
from blip2sweep.rows import Id

RULES = ("official", "lavis", "llava", "lmms")
SCORING: Mapping[str, tuple[str, ...]] = {"rule": RULES}
STRUCTURAL = ("verify", "query", "choose", "logical", "compare")
SEMANTIC = ("rel", "attr", "obj", "cat", "global")
STEPS = tuple(range(1, 10))
ANY_ATTRIBUTE = ("color", "material", "shape")  # what is valid and plausible where one asks for what is common
_NOT_A_STEP = ("exist", "query: name", "choose name")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_VERSION = "gqa-eval/1"


@dataclass(frozen=True)
class Asked:
    """What is known of a question, from its file. entailed: ids of the questions whose answers follow from its own.

    group: of questions whose answers have one distribution, None of those without. valid, plausible: the answers that a
    choices file lists, None without one.
    """

    answer: str
    structural: str
    semantic: str
    steps: int | None = None
    group: str | None = None
    entailed: tuple[Id, ...] = ()
    balanced: bool = True
    valid: frozenset[str] | None = None
    plausible: frozenset[str] | None = None


# ---- the rules


def _lmms(text: str) -> str:
    return text.lower()[: len(text)].translate(_NO_PUNCTUATION)  # numpy keeps the length of a text in lower case


_SAID: Mapping[str, Callable[[str], str]] = {
    "official": str,
    "lavis": normalize_answer,
    "llava": lambda text: text.rstrip(".").lower(),
    "lmms": _lmms,
}
_GOLD: Mapping[str, Callable[[str], str]] = {**_SAID, "llava": str}


def steps_of(semantic: Sequence[Mapping[str, object]]) -> int:
    """The number of reasoning steps of a question's program, {"operation", "argument"} a step."""
    texts = [f"{step['operation']}: {step['argument']}" for step in semantic]
    return sum(not any(word in text for word in _NOT_A_STEP) for text in texts)


# ---- the statistics


def _is(field: str, value: object) -> Callable[[Asked], bool]:
    return lambda question: bool(getattr(question, field) == value)


# The questions that each pair of columns of the statistic `gqa` counts: the score and 1 of a question, 0 and 0 of others.
_COUNTED: Mapping[str, Callable[[Asked], bool]] = {
    "accuracy": lambda q: True,
    "binary": lambda q: q.structural not in ("query", ""),  # an empty one was not said
    "open": lambda q: q.structural == "query",
    **{name: _is("structural", name) for name in STRUCTURAL},
    **{name: _is("semantic", name) for name in SEMANTIC},
    **{f"steps_{n}": _is("steps", n) for n in STEPS},
}


class GqaScorer:
    """Scores answers to questions by one rule. What depends on the questions alone is computed once.

    asked: {question id: what is known of it}, of all questions of the data. Raises KeyError for an unknown rule.
    """

    def __init__(self, asked: Mapping[Id, Asked], rule: str = RULES[0]) -> None:
        self._asked, self._said, self._gold = asked, _SAID[rule], cache(_GOLD[rule])
        self._there = statistics_of(asked)
        self._row = {own: i for i, own in enumerate(asked)}
        self._listed = cache(lambda texts: frozenset(map(self._gold, texts)))

    def statistics(self, ids: Sequence[Id], answers: Sequence[str]) -> dict[str, FloatArray]:
        """{statistic: (n, k)} float64, as METRICS reads them. ids, answers: n questions and what was said.

        Those of `statistics_of` are there.
        """
        asked, said = [self._asked[i] for i in ids], [self._said(text) for text in answers]
        right = np.array([a == self._gold(q.answer) for a, q in zip(said, asked, strict=True)], dtype=np.float64)
        masks = self._masks[:, [self._row[i] for i in ids]]
        found = {"gqa": np.stack([right * masks, masks], axis=1).reshape(2 * len(masks), len(ids)).T.copy()}
        if "gqa_consistency" in self._there:
            found["gqa_consistency"] = _consistency(ids, asked, right)
        if "gqa_choices" in self._there:
            found["gqa_choices"] = self._choices(asked, said)
        if "gqa_distribution" in self._there:
            found["gqa_distribution"] = self._distribution(asked, said)
        return found

    @cached_property
    def _masks(self) -> FloatArray:
        """(m, n): whether each pair of columns counts each question."""
        rows = [[q.balanced and counts(q) for q in self._asked.values()] for counts in _COUNTED.values()]
        return np.array(rows, dtype=np.float64)

    def _choices(self, asked: Sequence[Asked], said: Sequence[str]) -> FloatArray:
        """(n, 4): whether an answer is valid, and 1; whether it is plausible, and 1."""
        rows = [
            (a in self._listed(q.valid or frozenset()), 1, a in self._listed(q.plausible or frozenset()), 1)
            if q.balanced
            else (0, 0, 0, 0)
            for a, q in zip(said, asked, strict=True)
        ]
        return np.array(rows, dtype=np.float64).reshape(-1, 4)

    def _distribution(self, asked: Sequence[Asked], said: Sequence[str]) -> FloatArray:
        """(n, 2): in each row the value of all and 1; 0 and 0 where no question has a group."""
        grouped = [
            (q.group, self._gold(q.answer), a)
            for a, q in zip(said, asked, strict=True)
            if q.balanced and q.group is not None
        ]
        if not grouped:
            return np.zeros((len(asked), 2))
        sizes = Counter(group for group, _, _ in grouped)
        expected = Counter((group, gold) for group, gold, _ in grouped)
        observed = Counter((group, answer) for group, _, answer in grouped)
        total = sum(sizes[pair[0]] * (observed[pair] - n) ** 2 / n for pair, n in expected.items())
        return np.tile([total / len(grouped) / 100, 1.0], (len(asked), 1))


def statistics_of(asked: Mapping[Id, Asked]) -> set[str]:
    """The statistics that these questions have: consistency needs every question that a balanced one entails, choices
    what is valid and plausible of each, the distribution a group."""
    balanced = {own: q for own, q in asked.items() if q.balanced}
    wanted = {e for own, q in balanced.items() for e in q.entailed if e != own}
    there = {
        "gqa": True,
        "gqa_consistency": bool(wanted) and wanted <= asked.keys(),
        "gqa_choices": bool(balanced)
        and all(q.valid is not None and q.plausible is not None for q in balanced.values()),
        "gqa_distribution": any(q.group is not None for q in balanced.values()),
    }
    return {name for name, has in there.items() if has}


def scored(asked: Mapping[Id, Asked]) -> list[str]:
    """The names of PLAIN that these questions have a value of: accuracy, the groups that some balanced question is of,
    and those of the other statistics that are there."""
    there = statistics_of(asked)
    kinds = {(q.structural, q.semantic, q.steps): q for q in asked.values() if q.balanced}.values()
    absent = {f"gqa_{name}" for name, counts in _COUNTED.items() if not any(map(counts, kinds))} - {"gqa_accuracy"}
    return [m.name for m in PLAIN if m.statistic in there and m.name not in absent]


def _consistency(ids: Sequence[Id], asked: Sequence[Asked], right: FloatArray) -> FloatArray:
    """(n, 2): the share of a right question's entailed ones that are right too, and 1; else 0 and 0.

    An entailed question that was not answered, because its image could not be read, is left out.
    """
    known = dict(zip(ids, right, strict=True))
    rows = np.zeros((len(asked), 2))
    for i, (own, question) in enumerate(zip(ids, asked, strict=True)):
        inferred = [known[e] for e in question.entailed if e != own and e in known]
        if question.balanced and right[i] and inferred:
            rows[i] = sum(inferred) / len(inferred), 1
    return rows


# ---- the metrics


def _share(name: str, statistic: str, pair: int, **more: Any) -> Metric:
    return ratio(f"gqa_{name}", statistic, (2 * pair, 2 * pair + 1), True, _VERSION, **more)


PLAIN = (
    _share("accuracy", "gqa", 0, label="GQA accuracy", per_sample=True, order=3),
    *(_share(name, "gqa", i) for i, name in enumerate(_COUNTED) if i),
    # No `ratio`: how many questions it is a share of changes with the answers.
    Metric("gqa_consistency", "gqa_consistency", quotient(0, 1), True, _VERSION),
    _share("validity", "gqa_choices", 0),
    _share("plausibility", "gqa_choices", 1),
    ratio("gqa_distribution", "gqa_distribution", (0, 1), False, _VERSION, interval=False),
)
METRICS = with_variants(PLAIN, SCORING)
