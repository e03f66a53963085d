"""Roles of parts: words that mean the same in every model. They stand beside the names that a model gives its parts.

A part has one role. A role may have several parts and then means all of them. `language.encoder` is the stack `encoder`
of every part of that role that has several stacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from blip2sweep.errors import MissingRole, UserError, nearest
from blip2sweep.models.part import ROLES

if TYPE_CHECKING:
    from blip2sweep.models.anatomy import Anatomy
    from blip2sweep.models.part import Part

KEYED = ("per_part.", "model.dtype_per_part.")  # keys behind which a part is named


def check_names(model: str, parts: Mapping[str, Part]) -> None:
    """Raise UserError, one line, where a part has the name of a role that it does not have, or does not have alone."""
    wrong = [
        f"parts.{name}: is the name of a role, which {_others(name, parts)}; right: another name for the part"
        for name in parts
        if name in ROLES and [n for n, p in parts.items() if p.role == name] != [name]
    ]
    if wrong:
        raise UserError(f"model {model}: {'; '.join(wrong)}")


def _others(role: str, parts: Mapping[str, Part]) -> str:
    having = [n for n, p in parts.items() if p.role == role and n != role]
    return f"{' and '.join(having)} has" if len(having) == 1 else f"{' and '.join(having) or 'no part'} have"


def spellings(parts: Mapping[str, Part], addressable: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """{word: the addressable names it means} of every word of `part=`, roles last."""
    found: dict[str, tuple[str, ...]] = {name: (name,) for name in addressable}
    by_role: dict[str, tuple[str, ...]] = {}
    for name in found:
        base, dot, stack = name.partition(".")
        word = f"{parts[base].role}{dot}{stack}"
        by_role[word] = (*by_role.get(word, ()), name)
    return {**found, **{word: names for word, names in by_role.items() if word not in found}}


def resolve_names(anatomy: Anatomy, word: str, where: str) -> tuple[str, ...]:
    """The addressable names that one word means: itself, or the parts that have the role.

    where: what was typed, for the message. Raises MissingRole where no part of the model has the role, UserError for a
    word that is neither a name nor a role.
    """
    if word in anatomy.spellings:
        return anatomy.spellings[word]
    role = word.partition(".")[0]
    if role in ROLES and not anatomy.role(role):
        has = ", ".join(f"{p.name} ({p.role})" for p in anatomy.parts.values())
        why = f" ({reason})" if (reason := anatomy.not_addressable.get(role)) else ""
        raise MissingRole(f"{where}: model {anatomy.model} has no part of the role {role}{why}; its parts: {has}")
    raise UserError(
        f"{where}: model {anatomy.model} has no part '{word}'; {nearest(word, [*anatomy.spellings, 'all', 'none'])}"
    )


def check_spelling(anatomy: Anatomy, spelled: Iterable[tuple[str, str]]) -> None:
    """Raise UserError, one line, where one part is named by its name and by its role.

    spelled: (what was typed, the word for parts in it). Words that this model does not know are ignored here.
    """
    first: dict[str, tuple[int, str]] = {}
    for i, (typed, word) in enumerate(spelled):
        first.setdefault(word.partition(".")[0], (i, typed))
    for name, part in anatomy.parts.items():
        if name != part.role and name in first and part.role in first:
            both = " and ".join(dict.fromkeys(typed for _, typed in sorted((first[name], first[part.role]))))
            raise UserError(
                f"{both}: {part.role} and {name} are one part of model {anatomy.model}; right: one of the two words"
            )


def resolve_keys(key: str, anatomy: Anatomy) -> tuple[str, ...]:
    """The config keys that one key of `per_part` or `dtype_per_part` means, in the model's own names.

    Any other key is returned as it is.
    """
    head = next((k for k in KEYED if key.startswith(k)), None)
    if head is None:
        return (key,)
    word, dot, rest = key.removeprefix(head).partition(".")
    return tuple(f"{head}{name}{dot}{rest}" for name in anatomy.spellings.get(word, (word,)))
