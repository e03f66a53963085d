"""A sweep's overrides -> one override list a cell: products, studies, and `each`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from hydra.core.override_parser.types import Override

from blip2sweep.config.overrides import normalise, parse, texts
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy

Job = tuple[str, ...]  # overrides of one cell


class Composed(Protocol):
    """What `each` and studies need to know of a job."""

    def value(self, job: Job, key: str) -> object: ...
    def anatomy(self, job: Job) -> Anatomy: ...
    def study(self, name: str) -> list[list[str]]: ...
    def options(self, group: str) -> list[str]: ...


def expand(arguments: Sequence[str], composed: Composed) -> list[Job]:
    """All cells of a sweep, in the order Hydra's own sweeper would give: the last argument varies fastest."""
    jobs = [job for outer in product(parse(arguments), composed.options) for job in _studied(outer, composed)]
    return [cell for job in jobs for cell in _each(job, composed)]


def product(overrides: Sequence[Override], options: Callable[[str], list[str]]) -> list[Job]:
    """Every combination of the swept values; a key given twice counts once, with its last values."""
    axes: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        axes[key] = [f"{key}={v}" for v in texts(override, options)]
    return list(itertools.product(*axes.values()))


# ---- studies: a list of override lists, their union


def _studied(job: Job, composed: Composed) -> Iterator[Job]:
    name = next((o.partition("=")[2] for o in job if o.startswith("study=")), None)
    rest = tuple(o for o in job if not o.startswith("study="))
    if name in (None, "null"):
        yield rest
        return
    for line in composed.study(str(name)):
        inner = parse([normalise(o) for o in line])
        _refuse_swallowed(rest, inner, str(name))
        yield from ((*rest, *cell) for cell in product(inner, composed.options))


def _refuse_swallowed(job: Job, study: Sequence[Override], name: str) -> None:
    own = {o.get_key_element() for o in study}
    for text in job:
        key = text.partition("=")[0]
        if key in own:
            raise UserError(
                f"{text}: study={name} sets {key} itself and would swallow it; right: leave {key} to the study"
            )


# ---- each: one cell per block


def _each(job: Job, composed: Composed) -> Iterator[Job]:
    if composed.value(job, "blocks") == "each":
        parts = composed.anatomy(job).part_names(str(composed.value(job, "part")))
        for part in parts:
            for i in range(composed.anatomy(job).n_blocks(part)):
                yield _with(job, part=part, blocks=str(i))
        if not parts:
            yield _with(job, blocks="all")
    elif (name := _kept_each(composed.value(job, "keep"))) is not None:
        composed.anatomy(job).check_part(name, f"keep={name}:each")
        for i in range(composed.anatomy(job).n_blocks(name)):
            yield _with(job, keep=str(composed.value(job, "keep")).replace(":each", f":{i}", 1))
    else:
        yield job


def _kept_each(keep: object) -> str | None:
    words = str(keep).split(":")
    return words[0] if len(words) > 1 and words[1] == "each" else None


def _with(job: Job, **changes: str) -> Job:
    kept = tuple(o for o in job if o.partition("=")[0] not in changes)
    return (*kept, *(f"{k}={v}" for k, v in changes.items()))
