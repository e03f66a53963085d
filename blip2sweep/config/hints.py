"""What was meant by words that are no key, no choice and no override."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path

from blip2sweep.errors import UserError, nearest

YAML = ".yaml"
# First words of other programs, and what is typed here in their place.
NOT_HERE = {
    "run": "leave the word out, as in blip2sweep quant.bits=4",
    "sweep": "leave the word out, as in blip2sweep -m quant.bits=2,4",
    "multirun": "leave the word out, as in blip2sweep -m quant.bits=2,4",
    "version": "blip2sweep --version",
}


def nearest_key(key: str, keys: Collection[str]) -> str:
    """The tail of an error about an unknown key: the keys that end with its last word, else its nearest sibling."""
    head, _, last = key.rpartition(".")
    siblings = [k for k in keys if k.rpartition(".")[0] == head]
    if head and siblings:
        return nearest(key, siblings)
    if ending := keys_ending(last, keys):
        first, *others = ending
        if not others or first.count(".") < others[0].count("."):
            also = f"also known: {', '.join(others)}" if others else f"see blip2sweep --help {first}"
            return f"did you mean '{first}'? {also}"
        return f"right: one of {', '.join(ending)}"
    return nearest(key, siblings or [k for k in keys if "." not in k])


def keys_ending(word: str, keys: Collection[str]) -> list[str]:
    """The keys whose last word it is, the shortest names first; those of the nearest last word where it is none and no
    whole key is nearer."""
    found = sorted((k for k in keys if k.rpartition(".")[2] == word and "." in k), key=lambda k: (k.count("."), k))
    if found or get_close_matches(word, [k for k in keys if "." not in k], n=1):
        return found
    close = get_close_matches(word, {k.rpartition(".")[2] for k in keys}, n=1, cutoff=0.75)
    return keys_ending(close[0], keys) if close else []


def no_choice(group: str, name: str, options: Sequence[str]) -> str:
    """The message where a group has no such choice. A file of that name in a folder here is said with its --config-dir."""
    there = _file_of(group, name)
    if there is not None:
        folder, own = there
        sign = "+" if group == "experiment" else ""
        return f"{group}={name}: no such {group} among the folders that are read; right: --config-dir {folder} {sign}{group}={own}"
    if name.endswith(YAML):
        return f"{group}={name}: a file's name; right: {group}={Path(name).stem}, and --config-dir of the folder with {group}/"
    return f"{group}={name}: no such {group}; {nearest(name, options)}"


def _file_of(group: str, name: str) -> tuple[str, str] | None:
    """(the folder for --config-dir, the choice's name) of a file in the working folder, or in a folder of it."""
    typed, own = Path(name), name.removesuffix(YAML)
    typed = typed.with_name(typed.name.removesuffix(YAML) + YAML) if typed.name else typed
    if typed.parent.name == group and typed.is_file():
        return str(typed.parent.parent), typed.stem
    folders = [Path(), *sorted(p for p in Path().iterdir() if p.is_dir())]
    found = next((p for p in folders if (p / group / f"{own}{YAML}").is_file()), None)
    return None if found is None or typed.is_absolute() else (str(found), own)


def refuse_loose(words: Sequence[str], keys: Collection[str]) -> None:
    """Raise UserError for a word without `=` among overrides: a value that a blank tore off, a key without its value, or a
    word of no meaning."""
    for i, word in enumerate(words):
        before, after = words[i - 1] if i else "", words[i + 1] if i + 1 < len(words) else ""
        if word.startswith("="):
            _refuse_blank(before, word[1:] or after)
        if "=" not in word and not word.startswith("~"):
            if before.endswith("=") and before.count("=") == 1:
                _refuse_blank(before[:-1], word)
            if word in keys and not after.startswith("="):
                raise UserError(
                    f"{word}: a key without its value; right: {word}={after if after and '=' not in after else '…'}"
                )
            if not after.startswith("="):
                raise UserError(f"{word}: no key=value; right: {NOT_HERE.get(word, 'such as quant.bits=4')}")


def _refuse_blank(key: str, value: str) -> None:
    raise UserError(f"{key} = {value}: blanks around =; right: {key}={value}")


def flag_for_key(flags: Sequence[str], keys: Collection[str], words: Sequence[str]) -> None:
    """Raise UserError for a flag that is a key with two hyphens before it, such as `--limit 60`.

    words: all words, for the value behind the flag.
    """
    for flag in (f for f in flags if f.startswith("--")):
        name, given, value = flag[2:].partition("=")
        name = name.replace("-", "_")
        found = [name] if name in keys else [k for k in keys if k.rpartition(".")[2] == name]
        if found:
            at = words.index(flag) + 1
            value = value if given else words[at] if at < len(words) and "=" not in words[at] else "…"
            raise UserError(f"{flag}: no flag; right: {' or '.join(f'{k}={value}' for k in sorted(found))}")
