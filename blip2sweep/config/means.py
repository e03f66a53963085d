"""How the meaning of a key is written down, and the places where a key may count."""

from __future__ import annotations

from typing import NamedTuple

CELL = "part of a cell's key where the cell uses it"
SCORE = "of scores: no part of a cell's key, and nothing is run again for it"
CONTENT = "what lies there counts in a cell's key, not where it lies"
COMMAND = "one for a whole command; no part of a cell's key"
OUT = "no part of a cell's key"
NAMES = "names what the other keys of the section say; no part of a cell's key"

POSITIVE = "a positive integer"


class Means(NamedTuple):
    """What one key means.

    values: words that it takes, separated by spaces. right: what else is right; without it the words are all there is.
    counts: where the key counts.
    """

    meaning: str
    values: str = ""
    right: str = ""
    counts: str = CELL
