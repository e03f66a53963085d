"""How copies of the VQA evaluation rewrite an answer before it is compared. Each text is rewritten once.

- **official**: vqaEval.py of github.com/GT-Vision-Lab/VQA (commit a013f00).
- **marks alone**: its first half, which LAVIS applies to people's answers.
- **EvalAI**: `EvalAIAnswerProcessor` of github.com/facebookresearch/mmf, which LLaVA and lmms-eval copied.

The quirks of these files are part of every published number:
- A comma between digits, as in "1,000", makes every other mark vanish too instead of becoming a space. In the EvalAI
  processor no comma is left by then.
- A period vanishes unless a digit follows, and only the first 32 do (a flag passed as a count).
"""

from __future__ import annotations

import re
from functools import lru_cache

TEXTS = 2**18  # that are remembered; the answers of VQAv2's validation split have about as many spellings

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


@lru_cache(TEXTS)
def normalize_answer(text: str) -> str:
    """An answer without marks and articles, lower-cased, number words as digits, contractions with their apostrophe.

    "two" -> "2", "a dog" -> "dog", "dont" -> "don't", "1,000" -> "1000", "yes." -> "yes", "U.S." -> "us".
    """
    words = [_NUMBERS.get(word, word) for word in without_marks(text).lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


@lru_cache(TEXTS)
def evalai_answer(text: str) -> str:
    """An answer as the EvalAI processor leaves it: "," and "?" deleted and "'s" apart before all else.

    "1,000-2,000" -> "1000 2000", "what's" -> "what 's".
    """
    words = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return normalize_answer(one_line(words))


def one_line(text: str) -> str:
    """The text with line ends and tabs as spaces, and without space around it."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(TEXTS)
def without_marks(text: str) -> str:
    """The text without its marks and periods. It keeps its case, articles and numbers."""
    with_digit_comma = _DIGIT_COMMA.search(text) is not None
    cleaned = text
    for mark in _MARKS:
        if mark in text:
            # A mark beside a space anywhere in the text is dropped everywhere; else it separates words.
            beside_space = f"{mark} " in text or f" {mark}" in text
            cleaned = cleaned.replace(mark, "" if with_digit_comma or beside_space else " ")
    return _PERIOD.sub("", cleaned, count=_PERIODS_REMOVED)
