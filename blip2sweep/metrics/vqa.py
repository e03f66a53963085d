"""VQA accuracy by the official ten-answer rule, and by exact match where a question has one answer only.

Follows vqaEval.py of github.com/GT-Vision-Lab/VQA (commit a013f00), its quirks included: they are part of every
published number. Differences between copies of that file in other projects matter:
- Answers and references are normalised only where the references disagree. Where all ten agree the comparison is
  literal, so "Yes." against ten times "yes" counts as wrong (the authors confirm it in their issue 14). LAVIS carries
  an older version that always normalises the answer: ``literal_if_unanimous=False`` normalises both sides always.
- Leaving one out of n < 4 answers leaves too few to reach 1: the most is (n - 1)/3. Of one answer nothing would be
left, so that no model could ever be right: there the accuracy is 1 where both are the same after normalisation, else 0.
- A comma between digits, as in "1,000", makes every other mark vanish too instead of becoming a space.
- A period vanishes unless a digit follows, and only the first 32 do (a flag passed as a count).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from blip2sweep.metrics.metric import FloatArray

ANSWER_TYPES = ("yes/no", "number", "other")
LEAVE_ONE_OUT, EXACT_MATCH = "leave_one_out", "exact_match"

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS_REMOVED = int(re.UNICODE)
_ARTICLES = frozenset(["a", "an", "the"])
_NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBER_WORDS)}
# Written without its one apostrophe, each of these gets it back …
_ONE_APOSTROPHE = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't
it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't
somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's
they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's
where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
# … and each of these when one of its two is missing.
_TWO_APOSTROPHES = """
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've
there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've
"""
_IRREGULAR = {
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    "somebody'd": "somebodyd",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
}
_CONTRACTIONS = (
    {word.replace("'", ""): word for word in _ONE_APOSTROPHE.split()}
    | {word.replace("'", "", 1): word for word in _TWO_APOSTROPHES.split()}
    | {"".join(word.rsplit("'", 1)): word for word in _TWO_APOSTROPHES.split()}
    | _IRREGULAR
)


def normalize_answer(text: str) -> str:
    """An answer without marks and articles, lower-cased, number words as digits, contractions with their apostrophe.

    "two" -> "2", "a dog" -> "dog", "dont" -> "don't", "1,000" -> "1000", "yes." -> "yes", "U.S." -> "us".
    """
    words = [_NUMBERS.get(word, word) for word in _without_marks(text).lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(answer: str, references: Sequence[str], literal_if_unanimous: bool = True) -> float:
    """The accuracy (0-1) of one answer: min(1, matches/3), averaged over leaving out each reference in turn.

    references: the human answers to the question, ten in VQAv2, at least one. Of a single one: 1 or 0, by exact match
    of the normalised texts.
    """
    answer, truths = _one_line(answer), [_one_line(reference) for reference in references]
    if len(truths) == 1:
        return float(normalize_answer(answer) == normalize_answer(truths[0]))
    if not literal_if_unanimous or len(set(truths)) > 1:
        answer, truths = normalize_answer(answer), [normalize_answer(truth) for truth in truths]
    matches = [truth == answer for truth in truths]
    return sum(min(1.0, (sum(matches) - match) / 3) for match in matches) / len(matches)


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
    literal_if_unanimous: bool = True,
) -> dict[str, FloatArray]:
    """``{"vqa": (n, 10)}``, float64: accuracy and 1, then both for yes/no, number, other and any other type (0 and 0 if
    not the type).

    answers: n raw answers. references: n lists of human answers. answer_types: n words, None where nobody said, which
    counts for no type. Raises ValueError if the lengths differ or a question has no reference.
    """
    _check(answers, references, answer_types)
    accuracy = np.array(
        [
            vqa_accuracy(answer, truths, literal_if_unanimous)
            for answer, truths in zip(answers, references, strict=True)
        ],
        dtype=np.float64,
    )
    kinds = np.asarray(answer_types, dtype=object)
    known = [np.array(kinds == kind, dtype=np.float64) for kind in (*ANSWER_TYPES, None)]
    masks = [np.ones(len(accuracy)), *known[:-1], 1 - np.sum(known, axis=0)]
    return {"vqa": np.column_stack([column for mask in masks for column in (accuracy * mask, mask)])}


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _without_marks(text: str) -> str:
    with_digit_comma = _DIGIT_COMMA.search(text) is not None
    cleaned = text
    for mark in _MARKS:
        # A mark beside a space anywhere in the text is dropped everywhere; else it separates words.
        beside_space = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if with_digit_comma or beside_space else " ")
    return _PERIOD.sub("", cleaned, count=_PERIODS_REMOVED)


def _check(answers: Sequence[str], references: Sequence[Sequence[str]], answer_types: Sequence[str | None]) -> None:
    if not len(answers) == len(references) == len(answer_types):
        lengths = f"{len(answers)} answers, {len(references)} references, {len(answer_types)} answer types"
        raise ValueError(f"{lengths}; give one of each a question")
    for index, truths in enumerate(references):
        if isinstance(truths, str) or len(truths) == 0:
            raise ValueError(f"references[{index}] is {truths!r}; give a list of human answers")
