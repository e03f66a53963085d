"""Which code from outside a cell uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from blip2sweep import outside
from blip2sweep.backends.backend import BACKENDS, TORCH, backend_class
from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.step import STEPS, step
from blip2sweep.errors import UserError
from blip2sweep.models.architecture import ARCHITECTURES, FIRST, architecture
from blip2sweep.recipe import Recipe
from blip2sweep.tasks.task import FORMATS, KINDS, Format, Task
from blip2sweep.wire.pack import BackendChoice, OutsideCode

Codes = dict[str, OutsideCode]


def of_task(config: Mapping[str, object]) -> Codes:
    """How the files of a task are read, and what is asked and scored."""
    return _used("tasks", (str(config["format"]), str(config["kind"])))


def of_cell(
    model: Mapping[str, object], tasks: Iterable[Mapping[str, object]], recipe: Recipe, backend: BackendChoice | None
) -> Codes:
    """Of all its sections; empty for a cell of this package alone. Raises UserError where a name that it uses is taken twice."""
    methods = frozenset[str]().union(*(part.methods for part in recipe.parts.values()))
    found = _used("architectures", (str(model.get("architecture") or FIRST),))
    for task in tasks:
        found |= of_task(task)
    found |= _used("compression", sorted(recipe.further)) | _used("methods", sorted(methods))
    return found | _used("backends", (backend["name"] if backend else TORCH,))


def _used(group: str, names: Iterable[str]) -> Codes:
    there, built_in = list(names), _built_in(group)
    for name in (n for n in there if n in built_in):
        outside.refuse_taken(group, name)
    return outside.codes((group, name) for name in there if name not in built_in)


def _built_in(group: str) -> Mapping[str, object]:
    known: dict[str, Mapping[str, object]] = {
        "architectures": ARCHITECTURES, "tasks": {**FORMATS, **KINDS}, "compression": STEPS, "methods": METHODS,
        "backends": BACKENDS,
    }  # fmt: skip
    return known[group]


def text(codes: Codes) -> str:
    """As the table has it: `methods.mine sha256 1a2b3c4d5e6f; tasks.toy toy 1.0`."""
    return "; ".join(f"{full} {_said(code)}" for full, code in sorted(codes.items()))


def _said(code: OutsideCode) -> str:
    package = f"{code['package']} {code['version']}" if "package" in code else ""
    return " ".join([package, f"sha256 {code['sha256'][:12]}" if "sha256" in code else ""]).strip()


# ---- all that there is


def examined() -> Iterator[tuple[str, str, bool]]:
    """(`group.name`, where it is or what is wrong with it, whether it is well) of all code from outside; imports it."""
    for full, found in outside.listing():
        group, _, name = full.partition(".")
        try:
            if name in _built_in(group):
                outside.refuse_taken(group, name)
            _import(group, name)
            yield full, found.where, True
        except UserError as error:
            yield full, str(error), False


def _import(group: str, name: str) -> None:
    if group == "architectures":
        architecture({"architecture": name})
    elif group == "compression":
        step(name)
    elif group == "methods":
        assert METHODS[name]
    elif group == "backends":
        backend_class(name)
    elif (found := outside.find(group, name)) is not None:
        both = [outside.members(protocol) for protocol in (Format, Task)]
        found.having(min(both, key=lambda names: sum(not hasattr(found.module, n) for n in names)))
