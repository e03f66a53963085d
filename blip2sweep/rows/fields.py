"""What a field may hold: checks of one value, and of one field of all rows.

A check returns the value it was given (ids and answers in their one form). It raises Wrong with what the value is and
what would be right. Official files have half a million rows without a mistake, so most checks of a column look at all
its values together first; such a column is returned as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

Id = int | str
T = TypeVar("T")
Check = Callable[[list[object]], Sequence[T]]  # of a column

SMALLEST, LARGEST = -(2**63), 2**63 - 1
EXACT = 2.0**53  # a float holds every integer up to here
LONGEST_ID = 500  # characters
LONGEST_NAME = 255  # bytes of a file name; the limit of every file system in use
LONGEST_PATH = 2000  # bytes
MOST_WORDS, MOST_CHARACTERS = 500, 5000  # of a reference caption: METEOR's aligner gives up on long ones
MOST_CHOICES = 26  # each has a letter
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}(/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}){0,5}", re.ASCII)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Wrong(ValueError):
    """A value that a field may not hold. Its message says what the value is and what would be right."""


def shown(value: object) -> str:
    """A short text on one line that stands for any value in a message."""
    kinds = {type(None): "null", dict: "an object", list: "a list"}
    if type(value) in kinds:
        return kinds[type(value)]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and not -(10**20) < value < 10**20:
        return "a number of more than 20 digits"
    if isinstance(value, str):
        return ascii(value) if len(value) <= 60 else f"{value[:57]!a} … ({len(value)} characters)"
    return f"{value}"[:60]


def identifier(value: object) -> Id:
    """A whole number of at most 64 bits, or a text with a visible character."""
    if type(value) is int:
        if SMALLEST <= value <= LARGEST:
            return value
        raise Wrong(f"is {shown(value)}; right: a whole number of at most 64 bits, or a text")
    if type(value) is str:
        return _name(value)
    if type(value) is float and value.is_integer() and abs(value) <= EXACT:
        return int(value)
    raise Wrong(f"is {shown(value)}; right: a whole number or a text")


def _name(value: str) -> str:
    if not value.strip() or len(value) > LONGEST_ID or _CONTROL.search(text(value)):
        raise Wrong(f"is {shown(value)}; right: a whole number, or a text of 1 to {LONGEST_ID} characters on one line")
    return value


def text(value: object) -> str:
    """A string that can be written as UTF-8. It may be empty."""
    if type(value) is not str:
        raise Wrong(f"is {shown(value)}; right: a text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = ascii(value[error.start])
            raise Wrong(f"holds {half}, half of a character; right: a text that is Unicode") from None
    return value


def caption(value: object) -> str:
    """A text that is short enough to be compared with captions."""
    words = text(value)
    if len(words) > MOST_CHARACTERS or len(words.split()) > MOST_WORDS:
        length = f"has {len(words.split())} words and {len(words)} characters"
        raise Wrong(f"{length}; right: a caption of at most {MOST_WORDS} words and {MOST_CHARACTERS} characters")
    return words


def _seen(words: str) -> bool:
    """Whether a text has a visible character."""
    return any(c.isprintable() and not c.isspace() for c in words)


def question(value: object) -> str:
    """A text with at least one visible character."""
    if type(value) is str and value[:1].isalnum() and value.isascii():
        return value
    words = text(value)
    if not _seen(words):
        raise Wrong(f"is {shown(value)}; right: a question with words")
    return words


def file_name(value: object) -> str:
    """A relative path of plain names, with `/` between them."""
    name = text(value)
    if _PLAIN.fullmatch(name):
        return name
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        raise Wrong(f"is {shown(name)}, which leads out of the data folder; right: a name inside it")
    if not all(p.strip() and p != "." for p in parts):
        raise Wrong(f"is {shown(name)}; right: the name of an image file")
    if _CONTROL.search(name) or "\\" in name:
        raise Wrong(f"is {shown(name)}; right: a name on one line, with / between folders")
    if max(len(p.encode()) for p in parts) > LONGEST_NAME or len(name.encode()) > LONGEST_PATH:
        raise Wrong(f"is {shown(name)}; right: names of at most {LONGEST_NAME} bytes")
    return name


def folder_name(value: object) -> str:
    """A path as `file_name` takes it. A `/` at its end is removed."""
    return file_name(value.removesuffix("/") if isinstance(value, str) else value)


def answer_type(value: object) -> str | None:
    """A text with a visible character, or None where the file does not say the type."""
    if value is not None and not text(value).strip():
        raise Wrong(f"is {shown(value)}; right: such as 'yes/no', 'number' or 'other', or no answer_type at all")
    return cast("str | None", value)


# ---- lists of texts


def answers(value: object) -> tuple[str, ...]:
    """The answers that people gave to a question, at least one: texts, or objects with the text as `answer`."""
    try:
        found = [a["answer"] for a in cast("list[dict[str, str]]", value)]
    except (KeyError, TypeError):
        found = []
    if found and type(value) is list and set(map(type, found)) == {str} and "".join(found).isascii():
        return tuple(found)
    return tuple(_each(value, "answer", "texts, or objects with 'answer'", True, text))


def choices(value: object) -> tuple[str, ...]:
    """What there is to choose from: texts with a visible character, of which each gets a letter."""
    if type(value) is not list or not 2 <= len(value) <= MOST_CHOICES:
        told = f"has {len(value)} entries" if type(value) is list else f"is {shown(value)}"
        raise Wrong(f"{told}; right: a list of 2 to {MOST_CHOICES} texts")
    found = tuple(map(text, value))
    blank = next((i for i, words in enumerate(found) if not _seen(words)), None)
    if blank is not None:
        raise Wrong(f"[{blank}] is {shown(found[blank])}; right: a choice with a visible character")
    return found


def captions(value: object) -> list[str]:
    """The captions of an image, at least one."""
    return _each(value, None, "texts", True, caption)


def sentences(value: object) -> list[str]:
    """The captions of an image in a Karpathy file, at least one: objects with the caption as `raw`."""
    return _each(value, "raw", "objects with the caption as 'raw'", False, caption)


def _each(value: object, key: str | None, of: str, bare: bool, check: Callable[[object], str]) -> list[str]:
    """The texts of a list. key: the key under which an object holds its text; bare: whether an item may be a text."""
    if type(value) is not list or not value:
        raise Wrong(f"is {'an empty list' if value == [] else shown(value)}; right: a list of one or more {of}")
    found = []
    for i, given in enumerate(value):
        inside = type(given) is dict and key is not None
        if (inside and key not in given) or not (inside or bare):
            raise Wrong(f"[{i}] {f'has no {key!r}' if inside else f'is {shown(given)}'}; right: a list of {of}")
        try:
            found.append(check(given[key] if inside else given))
        except Wrong as wrong:
            raise Wrong(f"[{i}] {wrong}") from None
    return found


# ---- whole columns


def ids(column: list[object]) -> list[Id]:
    if set(map(type, column)) == {int}:
        numbers = cast("list[int]", column)
        if min(numbers) >= SMALLEST and max(numbers) <= LARGEST:
            return cast("list[Id]", column)
    return [identifier(value) for value in column]


def ids_or_none(column: list[object]) -> list[Id | None]:
    if set(map(type, column)) == {int}:
        return cast("list[Id | None]", ids(column))
    return [None if value is None else identifier(value) for value in column]


def texts(column: list[object]) -> list[str]:
    if set(map(type, column)) == {str}:
        found = cast("list[str]", column)
        if all(map(str.isascii, found)):
            return found
    return [text(value) for value in column]


def caption_texts(column: list[object]) -> list[str]:
    if set(map(type, column)) == {str} and max(map(len, cast("list[str]", column))) < 2 * MOST_WORDS:
        return texts(column)
    return [caption(value) for value in column]


def answer_types(column: list[object]) -> list[str | None]:
    if set(map(type, column)) == {str}:
        found = cast("list[str]", column)
        if all(v.strip() and v.isascii() for v in set(found)):
            return cast("list[str | None]", column)
    return [answer_type(value) for value in column]


def each_value(check: Callable[[object], T]) -> Check[T]:
    """The check of a column by the check of one value."""
    return lambda column: [check(value) for value in column]


questions = each_value(question)
file_names = each_value(file_name)
folder_names = each_value(folder_name)
folder_names_or_none = each_value(lambda value: None if value is None else folder_name(value))
answer_lists = each_value(answers)
caption_lists = each_value(captions)
sentence_lists = each_value(sentences)
