"""Where the parts of a model config are in its architecture: the stage and the order of their lists of blocks.

A part belongs to the stage that its stacks lie in, whatever the part is called and wherever it stands in the YAML.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from blip2sweep.errors import UserError
from blip2sweep.models.architecture import Stage
from blip2sweep.models.part import CONNECTOR, LANGUAGE, VISION


class Place(NamedTuple):
    """Where a part is computed: its stage, whether that is the last, and its stacks in the order of computation.

    role: of a part whose YAML names none. The first stage has the role vision, the last one language, those between
    connector.
    """

    stage: str
    role: str
    last: bool
    stacks: tuple[str, ...]


def places(stages: Sequence[Stage], family: str, parts: Mapping[str, Mapping[str, str]]) -> dict[str, Place]:
    """{part: its place}, parts in the order of computation. parts: {part: {stack: path of its list of blocks}}.

    Raises UserError where a stack is not a list of blocks of the architecture, where a part has stacks in two stages,
    and where two stacks are one list.
    """
    known = [path for stage in stages for path in stage.stacks]
    stacks = [(part, stack, path) for part, own in parts.items() for stack, path in own.items()]
    wrong = [_unknown(family, part, stack, path, known) for part, stack, path in stacks if path not in known]
    wrong += _twice(stacks) + [f"parts.{part} has no stacks" for part, own in parts.items() if not own]
    wrong += [
        f"parts.{part}: no name for a part; right: letters, digits and _, not all, none or per_…"
        for part in parts
        if not re.fullmatch(r"[A-Za-z]\w*", part, re.ASCII) or part in ("all", "none") or part.startswith("per_")
    ]
    stage_at = {path: stage.name for stage in stages for path in stage.stacks}
    for part, own in parts.items():
        held = {stage_at[path] for path in own.values() if path in stage_at}
        if len(held) > 1:
            wrong.append(f"parts.{part} has blocks in the stages {' and '.join(sorted(held))}; right: a part for each")
    if wrong:
        raise UserError("model: " + "; ".join(wrong))
    ordered = sorted(parts, key=lambda part: min(known.index(path) for path in parts[part].values()))
    return {part: _place(parts[part], stages, known) for part in ordered}


def _place(own: Mapping[str, str], stages: Sequence[Stage], known: list[str]) -> Place:
    names = sorted(own, key=lambda stack: known.index(own[stack]))
    at = next(i for i, s in enumerate(stages) if own[names[0]] in s.stacks)
    last = at == len(stages) - 1
    role = LANGUAGE if last else VISION if at == 0 else CONNECTOR
    return Place(stages[at].name, role, last, tuple(names))


def _unknown(family: str, part: str, stack: str, path: str, known: Iterable[str]) -> str:
    return f"parts.{part}.stacks.{stack}.path={path} is no list of blocks of family {family}; right: one of {', '.join(known)}"


def _twice(stacks: Iterable[tuple[str, str, str]]) -> list[str]:
    first: dict[str, str] = {}
    found = []
    for part, stack, path in stacks:
        name = f"parts.{part}.stacks.{stack}"
        if path in first:
            found.append(f"{name} is the same list of blocks as {first[path]}: {path}; right: each in one part")
        first.setdefault(path, name)
    return found
