"""The words of a command that say which cells there are: two commands that have the same of them ask for the same grid."""

from __future__ import annotations

import shlex

# Flags that say which config is composed, so other cells come of the same overrides: short name and long one.
CONFIGS = {"-cn": "--config-name", "-cd": "--config-dir", "-cp": "--config-path"}
SEARCHED = "hydra.searchpath"  # does what --config-dir does
SCREEN = "screen"  # the verb: a screening of a grid runs cells of the same grid
OTHERS = ("hydra", "rerun", "-", "+hydra", "output_dir")  # beginnings of words that change no cell


def cell_overrides(command: str) -> list[str]:
    """The overrides of a command that say which cells there are, and the flags that do, as `--config-name=VALUE`."""
    try:
        words = shlex.split(command)
    except ValueError:  # an open quote, as a file's name may have one
        words = command.split()
    found = list[str]()
    words = words[words[:1] == [SCREEN] :]
    while words:
        word = words.pop(0)
        if (flag := _of_config(word)) is not None:
            given, value = word.partition("=")[1:]
            found.append(f"{flag}={value if given or not words else words.pop(0)}")
        elif word.lstrip("+").startswith(SEARCHED) or not word.startswith(OTHERS):
            found.append(word)
    return found


def _of_config(word: str) -> str | None:
    """The long name of a flag that says which config is composed, also of its beginning, which Hydra takes; else None."""
    name = word.partition("=")[0]
    begun = next((f for f in CONFIGS.values() if name.startswith("--config-") and f.startswith(name)), None)
    return CONFIGS.get(name, begun)
