"""Errors a user can mend: one line that says what was wrong, where, and what would be right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The command line prints the message on one line and exits with code 2; nothing is queued or written."""


class UserErrors(UserError):
    """All that is wrong with one input. lines: one a mistake, each of which the command line prints on a line of its own."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("; also: ".join(self.lines))


class MissingExtra(UserError):
    """A library that is not installed: in a grid that has other cells, its own are skipped with that reason.

    used: the config keys that would have determined the recipe.
    """

    def __init__(self, message: str, used: frozenset[str]) -> None:
        super().__init__(message)
        self.used = used


class Absent(UserError):
    """What is named is not there: in a grid that has other cells, its own are skipped with that reason."""


class MissingRole(Absent):
    """No part of the model has the role."""


class DroppedTarget(Absent):
    """All blocks of a target are dropped."""


CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # C0, DEL, C1, and what some take for the end of a line


def unprintable(text: str) -> str | None:
    """The first control character of a text, in letters such as `\\n`."""
    found = CONTROL.search(text)
    return None if found is None else repr(found[0])[1:-1]


def nearest(word: str, known: Iterable[str]) -> str:
    """The tail of an error about an unknown name: the nearest known one, and all of them. A known name, whose file is
    missing, is not meant instead of itself."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close and close[0] != word else ""
    return f"{hint}known: {', '.join(names) or 'none'}"


class SweepFailed(Exception):
    """Some cells failed. The message is the summary by kind."""
