"""A step `scale`: all weights of whole blocks times a constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blip2sweep.compression.step import (
    Entries,
    Pair,
    Site,
    Spec,
    SpecFields,
    Stored,
    as_dicts,
    sites_of,
)
from blip2sweep.errors import UserError, nearest
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.part import Linear, Part

if TYPE_CHECKING:
    from torch import nn

    from blip2sweep.compression.undo import Undo

LEVEL, AFTER, SEMANTICS = "block", False, 1
OPTIONS = ("target", "factor")


@dataclass(frozen=True)
class Scale:
    """factor: what the weights of a block are multiplied by."""

    factor: float
    needs: frozenset[str] = frozenset()

    def as_dict(self) -> SpecFields:
        return {"factor": self.factor}

    def measured_on(self, digest: str) -> Scale:
        return self

    def first_block(self, site: Site) -> int:
        return site.block

    def stored(self, layer: Linear, before: Stored) -> Stored:
        return before


def resolve(
    options: Mapping[str, object], anatomy: Anatomy, where: str, runs: bool = True
) -> dict[str, Entries]:  # fmt: skip
    for name in options:
        if name not in OPTIONS:
            raise UserError(f"{where}.{name}: unknown option; {nearest(name, OPTIONS)}")
    spec = from_entry({"factor": options.get("factor")}, f"{where}.factor")
    there = sites_of(options.get("target"), anatomy, LEVEL, f"{where}.target")
    used, made = frozenset(f"{where}.{k}" for k in options), dict[str, Entries]()
    for part, own in there.items():
        made[part] = Entries("scale", tuple((site, spec) for site in own), used)
    return made


def identity(part: Part, pairs: Sequence[Pair]) -> dict[str, SpecFields]:
    return as_dicts(pairs)


def to_entry(spec: Spec) -> SpecFields:
    return spec.as_dict()


def from_entry(entry: Mapping[str, object], where: str = "factor") -> Scale:
    factor = entry.get("factor")
    if not isinstance(factor, int | float) or isinstance(factor, bool):
        raise UserError(f"{where}={factor}: right: a number such as 0.5")
    return Scale(float(factor))


def text(entry: Mapping[str, object]) -> str:
    return f"scale{entry['factor']}"


def apply(model: nn.Module, pairs: Sequence[Pair], undo: Undo, made: Mapping[str, object]) -> None:
    for site, spec in pairs:
        assert isinstance(spec, Scale)
        for parameter in model.get_submodule(site.path).parameters():
            undo.data(parameter, parameter.data * spec.factor)
