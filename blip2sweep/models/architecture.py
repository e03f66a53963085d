"""What planning knows of an architecture: its stages in the order they are computed, and where their blocks are.

A part belongs to the stage that its stacks lie in, whatever the part is called and wherever it stands in the YAML.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from blip2sweep.errors import UserError, nearest

VISION, BRIDGE, LANGUAGE = "vision", "bridge", "language"


class Stage(NamedTuple):
    """A step of the forward pass: the model's children that compute it, and its lists of blocks in their order."""

    name: str
    children: tuple[str, ...]
    stacks: tuple[str, ...]


def _blip2(*language: str) -> tuple[Stage, ...]:
    """The queries feed the Q-Former, the projection feeds the language model."""
    return (
        Stage(VISION, ("vision_model",), ("vision_model.encoder.layers",)),
        Stage(BRIDGE, ("query_tokens", "qformer"), ("qformer.encoder.layer",)),
        Stage(LANGUAGE, ("language_projection", "language_model"), language),
    )


# Per family of language model.
STAGES: dict[str, tuple[Stage, ...]] = {
    "opt": _blip2("language_model.model.decoder.layers"),
    "t5": _blip2("language_model.encoder.block", "language_model.decoder.block"),
}


def stages(family: str) -> tuple[Stage, ...]:
    """The stages of a family. Raises UserError for an unknown one."""
    if family not in STAGES:
        raise UserError(f"model.family={family}: unknown; {nearest(family, STAGES)}")
    return STAGES[family]


def stage_of(child: str, family: str) -> str:
    """The stage that a child of the model belongs to; child: the first word of a module path. KeyError for another."""
    return {c: stage.name for stage in stages(family) for c in stage.children}[child]


class Place(NamedTuple):
    """Where a part is computed: its stage, and its stacks (by name) in the order of computation."""

    stage: str
    stacks: tuple[str, ...]


def places(family: str, parts: Mapping[str, Mapping[str, str]]) -> dict[str, Place]:
    """{part: its place}, parts in the order of computation. parts: {part: {stack: path of its list of blocks}}.

    Raises UserError where a stack is no list of blocks of the architecture, where a part has stacks in two stages, and
    where two stacks are one list.
    """
    known = [path for stage in stages(family) for path in stage.stacks]
    stacks = [(part, stack, path) for part, own in parts.items() for stack, path in own.items()]
    wrong = [_unknown(family, part, stack, path, known) for part, stack, path in stacks if path not in known]
    wrong += _twice(stacks) + [f"parts.{part} has no stacks" for part, own in parts.items() if not own]
    wrong += [
        f"parts.{part}: no name for a part; right: letters, digits and _, not all, none or per_…"
        for part in parts
        if not re.fullmatch(r"[A-Za-z]\w*", part, re.ASCII) or part in ("all", "none") or part.startswith("per_")
    ]
    stage_at = {path: stage.name for stage in stages(family) for path in stage.stacks}
    for part, own in parts.items():
        held = {stage_at[path] for path in own.values() if path in stage_at}
        if len(held) > 1:
            wrong.append(f"parts.{part} has blocks in the stages {' and '.join(sorted(held))}; right: a part for each")
    if wrong:
        raise UserError("model: " + "; ".join(wrong))
    ordered = sorted(parts, key=lambda part: min(known.index(path) for path in parts[part].values()))
    return {part: _place(parts[part], stage_at, known) for part in ordered}


def _place(own: Mapping[str, str], stage_at: Mapping[str, str], known: list[str]) -> Place:
    names = sorted(own, key=lambda stack: known.index(own[stack]))
    return Place(stage_at[own[names[0]]], tuple(names))


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
