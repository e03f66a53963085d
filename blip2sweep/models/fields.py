"""Dotted fields of a config, and the products of them that sizes are. No torch here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping


def field(dotted: str, config: object) -> object:
    """The value of a dotted field; None where there is none."""
    for key in dotted.split("."):
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def named(config: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted name, value) of all fields."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from named(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def nested(fields: Mapping[str, object]) -> dict[str, object]:
    """{dotted name: value} as a config: the inverse of `named`."""
    found: dict[str, object] = {}
    for dotted, value in fields.items():
        *heads, last = dotted.split(".")
        inner = found
        for head in heads:
            inner = inner.setdefault(head, {})  # type: ignore[assignment]
        inner[last] = value
    return found


def factors(expression: object) -> list[str]:
    """The numbers and dotted fields of a `Size` (wire/model_section.py)."""
    return [word.strip() for word in re.split(r"[*/]", str(expression))]


def size(expression: object, config: Mapping[str, object]) -> int:
    """The value of a `Size`, whose fields are those of `config`."""

    def product(words: str) -> int:
        return math.prod(int(w) if w.isdigit() else int(str(field(w, config))) for w in factors(words))

    first, *divisors = str(expression).split("/")
    return product(first) // math.prod(map(product, divisors))
