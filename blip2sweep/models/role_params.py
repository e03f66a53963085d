"""How many parameters of a checkpoint belong to each role, and to each stage: everything, embeddings and heads included.
No torch here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.architecture import Stage
from blip2sweep.models.block_params import BlockParams
from blip2sweep.models.checkpoints.headers import Tensor
from blip2sweep.models.part import CONNECTOR, ROLES, Part

Words = tuple[str, ...]
Place = tuple[Words, str]  # a module, and the role or stage that it belongs to


def role_params(tensors: Mapping[str, Tensor], anatomy: Anatomy, tied: Sequence[Sequence[str]] = ()) -> dict[str, int]:
    """{role: its parameters}, in the order of ROLES; their sum is that of the checkpoint.

    A tensor belongs to the role of the part in whose module it lies, and otherwise to that of its stage: a projection into
    the language model to the language model. tensors: of the files, by name. tied: groups of names that are one tensor,
    which counts once.
    """
    places = _places(anatomy, lambda part: part.role, lambda stage: _role_of(stage, anatomy))
    return _counts(tensors, list(places), ROLES, tied)


def stage_params(tensors: Mapping[str, Tensor], anatomy: Anatomy, tied: Sequence[Sequence[str]] = ()) -> dict[str, int]:
    """{stage: its parameters}, in the order of the stages; their sum is that of the checkpoint."""
    places = _places(anatomy, lambda part: part.stage, lambda stage: stage.name)
    return _counts(tensors, list(places), [s.name for s in anatomy.stages], tied)


def unread_params(
    tensors: Mapping[str, Tensor], anatomy: Anatomy, blocks: BlockParams, words: Mapping[str, Sequence[str]]
) -> dict[str, int]:
    """{stage: its parameters that graphs leave out}: those of blocks whose outputs nothing reads, and of some modules.

    tensors: of the files, by name. blocks: of `block_params`. words: {stage: words of the names of such modules}.
    """
    places, found = list(_places(anatomy, lambda part: part.stage, lambda stage: stage.name)), dict[str, int]()
    for part in anatomy.parts.values():
        gone = sum(blocks.get(part.name, {}).get(i, 0) for i in part.unread_blocks)
        found[part.stage] = found.get(part.stage, 0) + gone
    own = {n: t for n, t in tensors.items() if {*n.split(".")} & {*words.get(_at(tuple(n.split(".")), places), ())}}
    named = _counts(own, places, [s.name for s in anatomy.stages], ())
    return {s.name: n for s in anatomy.stages if (n := found.get(s.name, 0) + named.get(s.name, 0))}


def _counts(
    tensors: Mapping[str, Tensor], places: Sequence[Place], names: Sequence[str], tied: Sequence[Sequence[str]]
) -> dict[str, int]:
    again = {name for group in tied for name in [n for n in group if n in tensors][1:]}
    found = dict.fromkeys(names, 0)
    for name, tensor in tensors.items():
        if tensor.dtype.startswith(("F", "BF")) and name not in again:
            found[_at(tuple(name.split(".")), places)] += math.prod(tensor.shape)
    return {name: n for name, n in found.items() if n}


def _role_of(stage: Stage, anatomy: Anatomy) -> str:
    own = [p.role for p in anatomy.parts.values() if p.stage == stage.name]
    return stage.name if stage.name in ROLES else (own[-1] if own else CONNECTOR)


def _places(anatomy: Anatomy, of_part: Callable[[Part], str], of_stage: Callable[[Stage], str]) -> Iterator[Place]:
    """Of parts before those of stages. Files may leave out the `model` that paths begin with."""
    for part in anatomy.parts.values():
        for stack in part.stacks:
            whole = _words(stack.path)
            yield from ((words, of_part(part)) for words in (whole, whole[:1]))
    for stage in anatomy.stages:
        yield from ((_words(child), of_stage(stage)) for child in stage.children)


def _words(path: str) -> Words:
    return tuple(path.removeprefix("model.").split(".")) if path else ()


def _at(name: Words, places: Sequence[Place]) -> str:
    """What belongs to the longest place whose words stand together in a name; of equals the one that begins first."""
    there = [(len(words), -at, what) for words, what in places if (at := _find(words, name)) is not None]
    return max(there, key=lambda place: place[:2])[2]


def _find(words: Words, name: Words) -> int | None:
    return next((i for i in range(len(name)) if name[i : i + len(words)] == words), None)
