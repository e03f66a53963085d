"""MMMU: options' letters and short answers read from free text, and accuracy by subject and discipline.

Follows eval/eval_utils.py of github.com/MMMU-Benchmark/MMMU (commit bb91f23), quirks included: an option's text counts
only in answers of more than five words, the last of several letters wins, and a text that holds the right short answer
anywhere is right. An answer from which no option can be read is **guessed**. The official code draws from one random
stream, so that a guess depends on all answers before it. Here a guess depends on the sample's id alone:
- `guess=seeded`: the option that a hash of the id names, the same one in every cell;
- `guess=expected`: one part in the number of options, which is what guesses are worth on average.
The share of guessed answers is the column `guess_rate`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from blip2sweep.metrics.groups import group_metrics, grouped
from blip2sweep.metrics.letters import LETTERS
from blip2sweep.metrics.metric import FloatArray, Metric, ratio
from blip2sweep.metrics.variants import with_variants

SCORING = {"guess": ("seeded", "expected")}
VERSION = "mmmu-bb91f23/1"
SEED = 0
DISCIPLINES = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy", "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        "Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power", "Materials",
        "Mechanical_Engineering",
    ),
}  # fmt: skip
SUBJECTS = tuple(subject for own in DISCIPLINES.values() for subject in own)
_OPEN = {"multiple_choice": "multiple choice", "open": "short answers"}
_NAMES = {d.lower().replace(" ", "_"): d for d in DISCIPLINES} | {s.lower(): s.replace("_", " ") for s in SUBJECTS}
GROUPS: Mapping[str, str] = _OPEN | _NAMES

_MARKS = (",", ".", "!", "?", ";", ":", "'")
_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_SENTENCES = re.compile(r"\.\s(?=[A-Z])|\n")
_WITH_COMMAS = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
_SCIENTIFIC = re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+")
_DECIMAL = re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])")

# ---- options


def read_option(text: str, options: Sequence[str]) -> int | None:
    """The number of the option that an answer names by its letter, or else by its text; None where there is none."""
    for mark in _MARKS:
        text = text.strip(mark)
    text = f" {text} "
    letters = LETTERS[: len(options)]
    bracketed = [i for i, letter in enumerate(letters) if f"({letter})" in text]
    if bracketed:
        return max(bracketed, key=lambda i: text.rfind(f"({letters[i]})"))
    alone = [i for i, letter in enumerate(letters) if f" {letter} " in text]
    if alone:
        return max(alone, key=lambda i: text.rfind(f" {letters[i]} "))
    return _by_text(text.lower(), [option.lower() for option in options]) if len(text.split()) > 5 else None


def _by_text(text: str, options: Sequence[str]) -> int | None:
    named = [i for i, option in enumerate(options) if option in text]
    return max(named, key=lambda i: text.rfind(options[i]), default=None)


def guess(sample: object, options: int) -> int:
    """The number of the option that is guessed for a sample, by its id."""
    return int.from_bytes(hashlib.sha256(f"{SEED}:{sample}".encode()).digest()) % options


# ---- short answers


def short_answer_right(text: str, answers: Sequence[str]) -> bool:
    """Whether an answer holds one of the right texts, or equals one of the right numbers to two decimals."""
    right = [x for answer in answers for x in _normalized(answer)]
    texts = [x for x in right if isinstance(x, str)]
    for said in read_short_answer(text):
        if any(x in said for x in texts) if isinstance(said, str) else said in right:
            return True
    return False


def read_short_answer(text: str) -> set[str | float]:
    """The texts and numbers that an answer may mean, normalised."""
    parts = _key_parts(text.strip().strip(".").lower())
    return {x for words in [*parts, *(n for part in parts for n in _numbers(part))] for x in _normalized(words)}


def _key_parts(text: str) -> list[str]:
    """The shortest end of each sentence behind a word such as "is"; the whole text where no sentence has one."""
    sentences = _SENTENCES.split(text)
    found = []
    for i, sentence in enumerate(sentences):
        indicators = (*_INDICATORS, "=") if i == len(sentences) - 1 else _INDICATORS
        shortest = ""
        for end in (sentence.split(word)[-1].strip() for word in indicators if word in sentence):
            shortest = end if not shortest or len(end) < len(shortest) else shortest
        if shortest and shortest not in _MARKS:
            found.append(shortest)
    return found or [text]


def _numbers(text: str) -> list[str]:
    return [number for form in (_WITH_COMMAS, _SCIENTIFIC, _DECIMAL) for number in form.findall(text)]


def _normalized(text: str) -> list[str | float]:
    """A number to two decimals, or a lower-cased text. A single character gets a blank before or behind it."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        return [f" {text.lower()}", f"{text.lower()} "] if len(text.lower()) == 1 else [text.lower()]


# ---- scores


def group_masks(subjects: Sequence[str], multiple_choice: Sequence[bool]) -> FloatArray:
    """(n, 38), float64: which of GROUPS each of n samples is of."""
    choice, subject = np.asarray(multiple_choice, dtype=bool), np.asarray(subjects, dtype=object)
    of_discipline = [np.isin(subject, np.array(own, dtype=object)) for own in DISCIPLINES.values()]
    masks = [choice, ~choice, *of_discipline, *(subject == s for s in SUBJECTS)]
    return np.column_stack(masks).astype(np.float64)


def mmmu_statistics(right: Sequence[float], guessed: Sequence[bool], masks: FloatArray) -> dict[str, FloatArray]:
    """{"mmmu": (n, 78), "mmmu_guess": (n, 2)}, float64, of n scores and of which of them were guessed."""
    guesses = np.column_stack([np.asarray(guessed, dtype=np.float64), np.ones(len(guessed))])
    return {"mmmu": grouped(np.asarray(right, dtype=np.float64), masks), "mmmu_guess": guesses}


_PLAIN = (
    *group_metrics("mmmu_accuracy", "mmmu", GROUPS, VERSION, "MMMU accuracy", 24),
    ratio("guess_rate", "mmmu_guess", (0, 1), False, VERSION, 1.0, label="guessed answers"),
)
METRICS: tuple[Metric, ...] = with_variants(_PLAIN, SCORING)
