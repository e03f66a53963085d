"""Texts as override values: what a flag or a variable holds means itself, whatever Hydra and OmegaConf would read in it.

Hydra itself is not needed, so that commands to copy are written by the same rule.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from blip2sweep.errors import UserError, unprintable

PLAIN = re.compile(r"(?!(?:true|false|null|none|inf|nan)$)[A-Za-z_/][\w./-]*", re.ASCII | re.IGNORECASE)
KEY = re.compile(r"[0-9a-f]{1,12}")


def override(key: str, value: str) -> str:
    """`key=value`, quoted unless Hydra reads the bare value as this very text."""
    return f"{key}={quoted(value)}"


def quoted(value: str) -> str:
    """A value that Hydra and then OmegaConf read as exactly this text. Raises UserError where none can be."""
    if PLAIN.fullmatch(value):
        return value
    if value == "???":
        raise UserError("???: stands for a missing value; right: another name, such as ./???")
    # OmegaConf resolves `${…}` in quotes too; a backslash before it, and one more for each that stood there, prevents it.
    literal = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", value)
    # Hydra's rule: backslashes count only before a quote, the closing one too, and are doubled there.
    return "'" + re.sub(r"(\\+)$", r"\1\1", re.sub(r"(\\*)'", r"\1\1\\'", literal)) + "'"


def path_override(key: str, value: str, flag: str) -> str:
    """`override` of a path. Raises UserError for an empty one, and for characters that no line can show."""
    if not value:
        raise UserError(f"{flag}: no folder given; right: {flag} DIR")
    if bad := unprintable(value):
        raise UserError(f"{flag} {value}: has the character {bad}; right: a path without control characters")
    return override(key, f"./{value}" if value == "???" else value)


def keys_override(words: list[str]) -> str:
    """`rerun=['49e823001112',…]` from the words of one or several `--rerun`, each a key or several with commas: never numbers."""
    keys = [key.strip() for word in words for key in word.split(",")]
    for key in keys:
        if not KEY.fullmatch(key):
            raise UserError(
                f"--rerun {key}: no key; right: up to 12 digits of 0-9 and a-f, as `blip2sweep table` shows them"
            )
    return f"rerun=[{','.join(map(quoted, keys))}]"


# ---- YAML


class _Dumper(yaml.SafeDumper):
    """PyYAML reads `49e823001112` as a text; loaders of YAML 1.2, and OmegaConf's, as infinity."""


def _quoted(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    number = re.fullmatch(r"[-+]?[\d._]+(e[-+]?\d+)?", value, re.IGNORECASE)
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if number else None)


_Dumper.add_representer(str, _quoted)


def yaml_text(data: Any) -> str:
    """YAML whose texts no loader takes for numbers."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False)
