"""Quotes texts for overrides, so that Hydra and OmegaConf read them as they are, whatever characters they have.

This module does not import Hydra. Commands that are printed for copying are quoted here too.
"""

from __future__ import annotations

import re

import yaml

from blip2sweep.errors import UserError, unprintable

PLAIN = re.compile(r"(?!(?:true|false|null|none|inf|nan)$)[A-Za-z_/][\w./-]*", re.ASCII | re.IGNORECASE)
KEY = re.compile(r"[0-9a-f]{1,12}")


def override(key: str, value: str) -> str:
    """`key=value`, quoted unless Hydra reads the bare value as this very text."""
    return f"{key}={quoted(value)}"


def quoted(value: str) -> str:
    """A value that Hydra and then OmegaConf read as exactly this text. Raises UserError where no value can be."""
    if PLAIN.fullmatch(value):
        return value
    if value == "???":
        raise UserError("???: stands for a missing value; right: another name, such as ./???")
    # OmegaConf resolves `${…}` in quotes too. A backslash before it prevents that; backslashes already there are
    # doubled.
    literal = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", value)
    # Hydra reads a backslash as an escape only before a quote, also before the closing one. There backslashes are
    # doubled.
    return "'" + re.sub(r"(\\+)$", r"\1\1", re.sub(r"(\\*)'", r"\1\1\\'", literal)) + "'"


def path_override(key: str, value: str, flag: str) -> str:
    """`override` of a path. Raises UserError for an empty path, and for characters that cannot be printed."""
    if not value:
        raise UserError(f"{flag}: no folder given; right: {flag} DIR")
    if bad := unprintable(value):
        raise UserError(f"{flag} {value}: has the character {bad}; right: a path without control characters")
    return override(key, f"./{value}" if value == "???" else value)


def keys_override(words: list[str]) -> str:
    """`rerun=['49e823001112',…]` from the words of `--rerun`, each one or several keys.

    Quotes keep keys from being numbers.
    """
    keys = [key.strip() for word in words for key in word.split(",")]
    for key in keys:
        if not KEY.fullmatch(key):
            raise UserError(
                f"--rerun {key}: no key; right: up to 12 digits of 0-9 and a-f, as `blip2sweep table` shows them"
            )
    return f"rerun=[{','.join(map(quoted, keys))}]"


# ---- YAML


class _Dumper(yaml.SafeDumper):
    """Quotes texts such as `49e823001112`: PyYAML reads a text, loaders of YAML 1.2 and OmegaConf read infinity."""


def _quoted(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    number = re.fullmatch(r"[-+]?[\d._]+(e[-+]?\d+)?", value, re.IGNORECASE)
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if number else None)


_Dumper.add_representer(str, _quoted)


def yaml_text(data: object) -> str:
    """The YAML of the data. No loader takes its texts for numbers."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False)
