"""Which code from outside a cell uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from blip2sweep import outside
from blip2sweep.backends.backend import BACKENDS, TORCH
from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.step import STEPS
from blip2sweep.models.architecture import ARCHITECTURES, FIRST
from blip2sweep.recipe import Recipe
from blip2sweep.tasks.task import FORMATS, KINDS
from blip2sweep.wire.pack import BackendChoice, OutsideCode

Codes = dict[str, OutsideCode]


def of_task(config: Mapping[str, object]) -> Codes:
    """How the files of a task are read, and what is asked and scored."""
    return _used("tasks", (str(config["format"]), str(config["kind"])), {**FORMATS, **KINDS})


def of_cell(
    model: Mapping[str, object], tasks: Iterable[Mapping[str, object]], recipe: Recipe, backend: BackendChoice | None
) -> Codes:
    """Of all its sections; empty for a cell of this package alone. Raises UserError where a name that it uses is taken twice."""
    methods = frozenset[str]().union(*(part.methods for part in recipe.parts.values()))
    found = _used("architectures", (str(model.get("architecture") or FIRST),), ARCHITECTURES)
    for task in tasks:
        found |= of_task(task)
    found |= _used("compression", sorted(recipe.further), STEPS) | _used("methods", sorted(methods), METHODS)
    return found | _used("backends", (backend["name"] if backend else TORCH,), BACKENDS)


def _used(group: str, names: Iterable[str], built_in: Mapping[str, object]) -> Codes:
    names = list(names)
    for name in (n for n in names if n in built_in):
        outside.refuse_taken(group, name)
    return outside.codes((group, name) for name in names if name not in built_in)


def text(codes: Codes) -> str:
    """As the table has it: `methods.mine sha256 1a2b3c4d5e6f; tasks.toy toy 1.0`."""
    return "; ".join(f"{full} {_said(code)}" for full, code in sorted(codes.items()))


def _said(code: OutsideCode) -> str:
    package = f"{code['package']} {code['version']}" if "package" in code else ""
    return " ".join([package, f"sha256 {code['sha256'][:12]}" if "sha256" in code else ""]).strip()
