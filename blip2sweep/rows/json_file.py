"""JSON of unknown origin. Reading it gives data, or a UserError of one line that names the file and the place."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blip2sweep.errors import UserError

SPACED = re.compile(r'"\s+:')  # a key with a blank behind it
LONGEST = 4000  # digits; Python refuses to read longer integers unless it is told to


@contextmanager
def without_gc() -> Iterator[None]:
    """Turn garbage collection off while files are read. Millions of new objects hold no garbage, and the search for it
    takes half of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def read_json(path: Path, right: str) -> object:
    """The data of a UTF-8 JSON file. right: what the file should be, for the message.

    Raises UserError for a file that is missing, unreadable, not UTF-8, empty, cut, not JSON or nested too deep, and for
    one with a key twice in an object.
    """
    return parse(read_text(path, right), str(path), right)


def read_text(path: Path, right: str) -> str:
    """The text of a UTF-8 file, with or without a byte order mark. Raises UserError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); right: {right}") from error
    except ValueError as error:  # a NUL in the path
        raise UserError(f"{path}: cannot be read ({error}); right: {right}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path}: not UTF-8 at byte {error.start} (line {line}); right: {right}, as UTF-8") from error


def parse(text: str, where: str, right: str, first_line: int = 1) -> object:
    """The data of a JSON text. where: its file; first_line: the text's first line in the file, for JSON Lines.

    Raises UserError.
    """
    if not text.strip():
        raise UserError(f"{where}: empty; right: {right}")
    try:
        data = _loads(text)
        twice = _key_twice(text, data)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno + first_line - 1} column {error.colno} (character {error.pos}: {error.msg})"
        raise UserError(f"{where}: not JSON at {at}: truncated or damaged; right: {right}") from error
    except RecursionError as error:
        raise UserError(f"{where}: nested too deep to be read; right: {right}") from error
    if twice is not None:
        raise UserError(
            f"{where}: the key {twice!r:.100} stands twice in one object, near {_near(text, twice)}; right: each key once, "
            f"since readers would take one of the two values"
        )
    return data


def _loads(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # a number of thousands of digits; the check of its field will refuse it as too large
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < LONGEST else 10**LONGEST)


def _key_twice(text: str, data: object) -> str | None:
    """A key that one object has twice, or None.

    Counting the colons after keys is quick. Objects are looked at one by one only where the count differs from the
    number of keys, or where the text has keys whose colons cannot be counted that way.
    """
    spaced = any(f"{space}:" in text for space in " \t\n\r") and SPACED.search(text)
    plain = '\\":' not in text and not spaced
    if plain and text.count('":') == _keys(data):
        return None
    found: list[str] = []

    def look(pairs: list[tuple[str, object]]) -> None:
        if not found and len({k for k, _ in pairs}) < len(pairs):
            names = [k for k, _ in pairs]
            found.append(next(k for k in names if names.count(k) > 1))

    json.loads(text, object_pairs_hook=look, parse_int=str)
    return found[0] if found else None


def _keys(data: object) -> int:
    """The number of keys of all objects in the data, counted level by level."""
    total, level = 0, [data]
    while level:
        objects, lists = [x for x in level if type(x) is dict], [x for x in level if type(x) is list]
        total += sum(map(len, objects))
        level = [x for o in objects for x in o.values() if type(x) is dict or type(x) is list]
        level += [x for of in lists for x in of if type(x) is dict or type(x) is list]
    return total


def _near(text: str, key: str) -> str:
    """The line and column where an object has the key again. The file's beginning, if keys are not written plainly."""
    name = json.dumps(key, ensure_ascii=False)
    start = text.find(name)
    while start >= 0:
        after = text.find(name, start + 1)
        if after >= 0 and "{" not in text[start:after] and "}" not in text[start:after]:
            before = text[:after]
            return f"line {before.count(chr(10)) + 1} column {after - before.rfind(chr(10))}"
        start = after
    return "its beginning"
