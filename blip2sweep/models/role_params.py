"""How many parameters of a checkpoint belong to each role: everything, embeddings and heads included. No torch here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.checkpoints.headers import Tensor
from blip2sweep.models.part import CONNECTOR, ROLES

Words = tuple[str, ...]


def role_params(tensors: Mapping[str, Tensor], anatomy: Anatomy, tied: Sequence[Sequence[str]] = ()) -> dict[str, int]:
    """{role: its parameters}, in the order of ROLES; their sum is that of the checkpoint.

    A tensor belongs to the role of the part in whose module it lies, and otherwise to that of its stage: a projection into
    the language model to the language model. tensors: of the files, by name. tied: groups of names that are one tensor,
    which counts once.
    """
    again = {name for group in tied for name in [n for n in group if n in tensors][1:]}
    places, found = list(_places(anatomy)), dict.fromkeys(ROLES, 0)
    for name, tensor in tensors.items():
        if tensor.dtype.startswith(("F", "BF")) and name not in again:
            found[_role(tuple(name.split(".")), places)] += math.prod(tensor.shape)
    return {role: n for role, n in found.items() if n}


def _places(anatomy: Anatomy) -> Iterator[tuple[Words, str]]:
    """(words of a module's path, its role), parts before stages. Files may leave out the `model` that paths begin with."""
    for part in anatomy.parts.values():
        for stack in part.stacks:
            whole = _words(stack.path)
            yield from ((words, part.role) for words in (whole, whole[:1]))
    for stage in anatomy.stages:
        own = [p.role for p in anatomy.parts.values() if p.stage == stage.name]
        role = stage.name if stage.name in ROLES else (own[-1] if own else CONNECTOR)
        yield from ((_words(child), role) for child in stage.children)


def _words(path: str) -> Words:
    return tuple(path.removeprefix("model.").split(".")) if path else ()


def _role(name: Words, places: Sequence[tuple[Words, str]]) -> str:
    """The role of the longest place whose words stand together in a name; of equals the one that begins first."""
    there = [(len(words), -at, role) for words, role in places if (at := _find(words, name)) is not None]
    return max(there, key=lambda place: place[:2])[2]


def _find(words: Words, name: Words) -> int | None:
    return next((i for i in range(len(name)) if name[i : i + len(words)] == words), None)
