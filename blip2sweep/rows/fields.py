"""What a field may hold: checks of one value, and of one field of all rows at once.

Each returns what it was given (ids and answers in their one form), or raises Wrong with what a value is and what would be
right. Official files have half a million rows without a mistake, so whole columns are looked at first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Id = int | str
Check = Callable[[list[Any]], list[Any]]  # of a column

SMALLEST, LARGEST = -(2**63), 2**63 - 1
EXACT = 2.0**53  # up to here a float holds every integer
LONGEST_ID = 500  # characters
LONGEST_NAME = 255  # bytes of a file name, on every file system that is in use
LONGEST_PATH = 2000  # bytes
MOST_WORDS, MOST_CHARACTERS = 500, 5000  # of a reference caption: METEOR's aligner gives up on long ones
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}(/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}){0,5}", re.ASCII)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Wrong(ValueError):
    """The message: what the value is, and what would be right."""


def shown(value: Any) -> str:
    """A value as messages name it: short, on one line, whatever it is."""
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


def identifier(value: Any) -> Id:
    """A whole number of at most 64 bits, or a text that names something."""
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


def text(value: Any) -> str:
    """A string, empty or not, that can be written as UTF-8."""
    if type(value) is not str:
        raise Wrong(f"is {shown(value)}; right: a text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = ascii(value[error.start])
            raise Wrong(f"holds {half}, half of a character; right: a text that is Unicode") from None
    return value


def caption(value: Any) -> str:
    """A text that captions can be compared with."""
    if len(text(value)) > MOST_CHARACTERS or len(value.split()) > MOST_WORDS:
        told = f"has {len(value.split())} words and {len(value)} characters"
        raise Wrong(f"{told}; right: a caption of at most {MOST_WORDS} words and {MOST_CHARACTERS} characters")
    return str(value)


def question(value: Any) -> str:
    """A text with something to read in it."""
    if type(value) is str and value[:1].isalnum() and value.isascii():
        return value
    if not any(c.isprintable() and not c.isspace() for c in text(value)):
        raise Wrong(f"is {shown(value)}; right: a question with words")
    return str(value)


def file_name(value: Any) -> str:
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


def folder_name(value: Any) -> str:
    """As `file_name`; a trailing `/` does no harm."""
    return file_name(value.removesuffix("/") if isinstance(value, str) else value)


def answers(value: Any) -> tuple[str, ...]:
    """The answers of people to a question, at least one: texts, or objects that hold one as `answer`."""
    try:
        found = [a["answer"] for a in value]
    except (KeyError, TypeError):
        found = []
    if found and type(value) is list and set(map(type, found)) == {str} and "".join(found).isascii():
        return tuple(found)
    return tuple(_each(value, "answer", "texts, or objects with 'answer'", True, text))


def captions(value: Any) -> list[str]:
    """The captions of an image, at least one."""
    return _each(value, None, "texts", True, caption)


def sentences(value: Any) -> list[str]:
    """The captions of an image in a Karpathy file, at least one: objects that hold one as `raw`."""
    return _each(value, "raw", "objects with the caption as 'raw'", False, caption)


def _each(value: Any, key: str | None, of: str, bare: bool, check: Callable[[Any], str]) -> list[str]:
    """The texts of a list. key: under which an object holds its text; bare: texts alone do as well."""
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


def answer_type(value: Any) -> str | None:
    """A word, or null where nobody said."""
    if value is None:
        return None
    if not text(value).strip():
        raise Wrong(f"is {shown(value)}; right: such as 'yes/no', 'number' or 'other', or no answer_type at all")
    return str(value)


# ---- whole columns


def ids(found: list[Any]) -> list[Any]:
    if set(map(type, found)) == {int} and min(found) >= SMALLEST and max(found) <= LARGEST:
        return found
    return [identifier(value) for value in found]


def ids_or_none(found: list[Any]) -> list[Any]:
    if set(map(type, found)) == {int}:
        return ids(found)
    return [None if value is None else identifier(value) for value in found]


def texts(found: list[Any]) -> list[Any]:
    if set(map(type, found)) == {str} and all(map(str.isascii, found)):
        return found
    return [text(value) for value in found]


def caption_texts(found: list[Any]) -> list[Any]:
    if set(map(type, found)) == {str} and max(map(len, found)) < 2 * MOST_WORDS:
        return texts(found)
    return [caption(value) for value in found]


def questions(found: list[Any]) -> list[Any]:
    return [question(value) for value in found]


def file_names(found: list[Any]) -> list[Any]:
    return [file_name(value) for value in found]


def folder_names(found: list[Any]) -> list[Any]:
    return [folder_name(value) for value in found]


def answer_lists(found: list[Any]) -> list[Any]:
    return [answers(value) for value in found]


def caption_lists(found: list[Any]) -> list[Any]:
    return [captions(value) for value in found]


def sentence_lists(found: list[Any]) -> list[Any]:
    return [sentences(value) for value in found]


def answer_types(found: list[Any]) -> list[Any]:
    if set(map(type, found)) == {str} and all(v.strip() and v.isascii() for v in set(found)):
        return found
    return [answer_type(value) for value in found]
