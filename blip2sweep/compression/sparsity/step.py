"""Sparsity as a step of a recipe: which weights of a linear layer become zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from blip2sweep.compression.step import SPARSITY, Entries, Pair, Spec, SpecFields, as_dicts
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.part import Part

if TYPE_CHECKING:
    from torch import nn

    from blip2sweep.compression.undo import Undo

LEVEL, AFTER, SEMANTICS = "layer", False, 1


def resolve(
    config: Mapping[str, object], anatomy: Anatomy, where: str = SPARSITY, runs: bool = True
) -> dict[str, Entries]:
    """{part: entries} of the config of a cell."""
    section = config.get(where)
    if not isinstance(section, Mapping) or section.get("method") is None:
        return {}
    raise UserError(f"{where}={section['method']}: not made yet; right: {where}=none")


def identity(part: Part, pairs: Sequence[Pair]) -> dict[str, SpecFields]:
    return as_dicts(pairs)


def to_entry(spec: Spec) -> SpecFields:
    return spec.as_dict()


def from_entry(entry: Mapping[str, object]) -> Spec:
    raise UserError(f"recipe entry {dict(entry)}: not made yet")


def text(entry: Mapping[str, object]) -> str:
    return str(entry.get("method"))


def apply(model: nn.Module, pairs: Sequence[Pair], undo: Undo, made: Mapping[str, object]) -> None:
    raise NotImplementedError
