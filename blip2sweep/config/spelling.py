"""Checks how a command names the parts of a model: each part by its name or by its role, and never by both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from hydra.core.override_parser.types import Override

from blip2sweep.config.overrides import values
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.part import ROLES
from blip2sweep.models.roles import KEYED, check_spelling


def check_typed(overrides: Sequence[Override], anatomies: Iterable[Anatomy]) -> None:
    """Raise UserError, one line, where overrides name one part by its name and by its role.

    anatomies: of the models of the sweep. They are read only if the overrides contain both names and roles.
    """
    words = [pair for override in overrides for pair in _words(override)]
    dropped = [pair for pair in words if pair[0].startswith("drop_blocks=")]
    both = [[pair for pair in words if pair not in dropped], dropped]  # blocks are dropped whatever `part` names
    mixed = [own for own in both if len({word.partition(".")[0] in ROLES for _, word in own}) == 2]
    for anatomy in anatomies if mixed else ():
        for own in mixed:
            check_spelling(anatomy, own)


def _words(override: Override) -> Iterator[tuple[str, str]]:
    """(text, word for parts) of one override, or of each value of a sweep."""
    key = override.key_or_group
    if key.startswith(KEYED):
        head = next(k for k in KEYED if key.startswith(k))
        yield str(override.input_line).lstrip("+"), key.removeprefix(head)
    elif key in PARTS or (key.startswith(("rules.", "steps.")) and key.endswith(".target")):
        for value in values(override):
            words = PARTS.get(key, _before_colon)(str(value))
            yield from ((f"{key}={value}", word) for word in words if word not in ("all", "none", "None"))


def _before_colon(text: str) -> list[str]:
    return text.split(":")[0].split("+")


# The words for parts in a value of a key.
PARTS: dict[str, Callable[[str], list[str]]] = {
    "part": lambda text: text.split("+"),
    "keep": _before_colon,
    "recover.target": _before_colon,
    "drop_blocks": lambda text: [piece.rpartition(":")[0] for piece in text.split("+") if ":" in piece],
}
