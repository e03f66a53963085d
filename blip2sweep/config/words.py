"""Overrides of Python values: a mapping becomes the words that the command line has for it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath

from blip2sweep.config.arguments import MULTIRUN, no_loose_comma
from blip2sweep.config.overrides import OVERRIDE, normalise
from blip2sweep.config.schema import GROUPS, known_keys, list_keys, text_keys
from blip2sweep.console.quoting import keys_override, path_override, quoted
from blip2sweep.errors import UserError, UserErrors

Overrides = str | Mapping[str, object]
VALUES = "a text, a number, a bool, None, or a list of these"


def words_of(overrides: Overrides, more: Iterable[Overrides] = ()) -> list[str]:
    """The words of a sweep, as Hydra needs them.

    overrides: words of the command line in one text, `-m` among them or not; or a mapping, in which a list makes a cell of
    each of its values, a mapping within is the section below its key, and a text is one value as it stands. more: further
    mappings, and single words, which may hold blanks.

    Raises UserError with all that is wrong.
    """
    first = _split(overrides) if isinstance(overrides, str) else [overrides]
    found, wrong = list[str](), list[str]()
    for one in (*first, *more):
        made = _of_mapping(one, wrong) if isinstance(one, Mapping) else [one]
        for word in made:
            try:
                found += _checked(word)
            except UserError as error:
                wrong.append(str(error))
    if wrong:
        raise UserErrors(wrong)
    return found


def with_output_dir(words: Sequence[str], output_dir: object) -> list[str]:
    """The words, and where the results are. Raises UserError where a word says it too, or it is no folder's name."""
    if output_dir is None:
        return list(words)
    if there := next((w for w in words if w.startswith("output_dir=")), None):
        raise UserError(f"{there}: output_dir={output_dir} is given too; right: one of them")
    return [*words, path_override("output_dir", str(output_dir), "output_dir")]


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"{text}: {str(error).lower()}; right: quotes in pairs, as in a shell") from error


def _checked(word: object) -> Iterator[str]:
    """A word as Hydra needs it; nothing for `-m`. Raises UserError for a word that belongs to the command line alone."""
    if not isinstance(word, str):
        raise UserError(
            f"{word!r}: of type {type(word).__name__}; right: a text such as 'quant.bits=2,4', or a mapping"
        )
    if word in MULTIRUN:
        return
    if word.startswith("-"):
        named = {"--config-dir": "config_dir=…", "--output-dir": "output_dir=…", "--rerun": "rerun=KEY"}
        right = named.get(word.partition("=")[0], "key=value, and the arguments of the function")
        raise UserError(f"{word}: a flag of the command line; right: {right}")
    if word.lstrip("+").startswith("hydra"):
        key = word.lstrip("+").partition("=")[0].rpartition(".")[2]
        own = f"{key}=… of the function" if key in ("workers", "processes_per_cell") else "python -m blip2sweep -m …"
        raise UserError(f"{word}: a setting of the command line, and this runs in Python, here; right: {own}")
    if not (found := OVERRIDE.match(word)) or not found["rest"]:
        raise UserError(f"{word}: no key=value; right: such as quant.bits=2,4")
    yield normalise(no_loose_comma(word))


# ---- mappings


def _of_mapping(overrides: Mapping[str, object], wrong: list[str], within: str = "") -> Iterator[str]:
    """`key=value` of each entry. What is wrong is added to `wrong`."""
    for name, value in overrides.items():
        if not isinstance(name, str):
            wrong.append(f"{within}{name!r}: a key of type {type(name).__name__}; right: a text such as 'quant.bits'")
        elif isinstance(value, Mapping) and value:
            yield from _of_mapping(value, wrong, f"{within}{name}.")
        else:
            try:
                yield _entry(within + name, value)
            except UserError as error:
                wrong.append(str(error))


def _entry(key: str, value: object) -> str:
    value = _plain(value)
    if isinstance(value, str) and "," in value and (key in GROUPS or key in known_keys() - text_keys() - list_keys()):
        listed = [word.strip() for word in value.split(",")]
        raise UserError(f"{key}={value}: one text, since a text is one value in a mapping; right: {key!r}: {listed}")
    if not isinstance(value, list | tuple | range):
        return f"{key}={_text(key, value)}"
    if not value:
        raise UserError(f"{key}: an empty list, so no cell; right: at least one value")
    if key == "rerun":
        return keys_override([str(one) for one in value])
    return f"{key}={','.join(_text(key, one) for one in value)}"


def _text(key: str, value: object) -> str:
    """A value as Hydra writes it."""
    value = _plain(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | PurePath):
        return quoted(str(value))
    if isinstance(value, list | tuple | range):
        return f"[{','.join(_text(key, one) for one in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_text(key, k)}:{_text(key, v)}" for k, v in value.items()) + "}"
    raise UserError(f"{key}: a value of type {type(value).__name__}; right: {VALUES}")


def _plain(value: object) -> object:
    """The value; of an array, a column or a number of numpy what Python has for it."""
    listed = getattr(value, "tolist", None)
    return listed() if callable(listed) else value
