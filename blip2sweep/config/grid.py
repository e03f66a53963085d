"""Expands a sweep's overrides into one override list for each cell: products, studies and `each`."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from hydra.core.override_parser.types import Override

from blip2sweep.config.overrides import normalise, parse, texts
from blip2sweep.config.spelling import check_typed
from blip2sweep.errors import MissingRole, UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.roles import resolve_keys

Job = tuple[str, ...]  # overrides of one cell


class Composed(Protocol):
    """The parts of a job's config that `each` and studies read."""

    def value(self, job: Job, key: str) -> object: ...
    def anatomy(self, job: Job) -> Anatomy: ...
    def study(self, job: Job) -> list[list[str]] | None: ...
    def options(self, group: str) -> list[str]: ...


def expand(arguments: Sequence[str], composed: Composed) -> list[Job]:
    """All cells of a sweep, in the order of Hydra's own sweeper: the last argument varies fastest."""
    typed = parse(arguments)
    jobs = [job for outer in product(typed, composed.options) for job in _studied(outer, composed)]
    check_typed(typed, _anatomies(jobs, composed))
    return [cell for job in jobs for dropped in _each_dropped(job, composed) for cell in _each(dropped, composed)]


def _anatomies(jobs: Iterable[Job], composed: Composed) -> Iterator[Anatomy]:
    """The anatomies of a sweep's models. A model without an anatomy is left out; planning refuses it."""
    for chosen in dict.fromkeys(
        tuple(o for o in job if o.startswith(("model=", "model.", "experiment="))) for job in jobs
    ):
        with contextlib.suppress(UserError):
            yield composed.anatomy(chosen)


def product(overrides: Sequence[Override], options: Callable[[str], list[str]]) -> list[Job]:
    """Every combination of the swept values. Of a key that is given twice only the last values count."""
    axes: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        axes[key] = [f"{key}={v}" for v in texts(override, options)]
    return list(itertools.product(*axes.values()))


# ---- studies: a list of override lists, their union


def _studied(job: Job, composed: Composed) -> Iterator[Job]:
    lists = composed.study(job)
    rest = tuple(o for o in job if not o.startswith("study="))
    if lists is None:
        yield rest
        return
    name = next((o for o in job if o.startswith("study=")), None) or next(o for o in job if o.startswith("experiment="))
    for line in lists:
        inner = parse([normalise(o) for o in line])
        cells = product(inner, composed.options)
        shapes = list(_anatomies([(*rest, *cell) for cell in cells], composed))
        check_typed(inner, shapes)
        _refuse_swallowed(rest, inner, name, shapes)
        yield from ((*rest, *cell) for cell in cells)


def _refuse_swallowed(job: Job, study: Sequence[Override], name: str, shapes: Sequence[Anatomy]) -> None:
    own = {k for o in study for k in _keys(o.get_key_element(), shapes)}
    for text in job:
        key = text.partition("=")[0]
        if own.intersection(_keys(key, shapes)):
            raise UserError(f"{text}: {name} sets {key} itself and would swallow it; right: leave {key} to the study")


def _keys(key: str, shapes: Sequence[Anatomy]) -> set[str]:
    """A key, and its forms with the model's own names for parts."""
    return {key, *(k for shape in shapes for k in resolve_keys(key.lstrip("+"), shape))}


# ---- each: one cell per block


def _each(job: Job, composed: Composed) -> Iterator[Job]:
    if composed.value(job, "blocks") == "each":
        yield from _each_block(job, composed)
    elif (word := _kept_each(composed.value(job, "keep"))) is not None:
        yield from _each_kept(job, composed, word)
    else:
        yield job


def _each_block(job: Job, composed: Composed) -> Iterator[Job]:
    shape, part = composed.anatomy(job), str(composed.value(job, "part"))
    try:
        words = _single(shape, shape.part_names(part), part.split("+"))
    except MissingRole:  # planning skips the cell with that reason
        yield job
        return
    for word, name in words.items():
        yield from (_with(job, part=word, blocks=str(i)) for i in range(shape.n_blocks(name)))
    if not words:
        yield _with(job, blocks="all")


def _each_kept(job: Job, composed: Composed, word: str) -> Iterator[Job]:
    shape, rest = composed.anatomy(job), str(composed.value(job, "keep")).removeprefix(f"{word}:each")
    try:
        names = shape.resolve_names(word, f"keep={word}:each")
    except MissingRole:
        yield job
        return
    for own, name in _single(shape, names, [word]).items():
        yield from (_with(job, keep=f"{own}:{i}{rest}") for i in range(shape.n_blocks(name)))


def _each_dropped(job: Job, composed: Composed) -> Iterator[Job]:
    """One job for each block, where `each` stands in `drop_blocks`."""
    text = str(composed.value(job, "drop_blocks"))
    pieces = text.split("+")
    each = [i for i, piece in enumerate(pieces) if piece.rpartition(":")[2] == "each"]
    word = next((p.rpartition(":")[0] for p in reversed(pieces[: each[0] + 1]) if ":" in p), "") if each else ""
    if not word:  # planning refuses a text that begins with no part
        yield job
        return
    if len(each) > 1:
        raise UserError(f"drop_blocks={text}: `each` stands there twice; right: once, and a comma for another sweep")
    shape = composed.anatomy(job)
    try:
        names = shape.resolve_names(word, f"drop_blocks={text}")
    except MissingRole:
        yield job
        return
    for own, name in _single(shape, names, [word]).items():
        for i in range(shape.n_blocks(name)):
            there = "+".join([*pieces[: each[0]], f"{own}:{i}", *pieces[each[0] + 1 :]])
            yield _with(job, drop_blocks=there)


def _single(shape: Anatomy, names: Iterable[str], words: Iterable[str]) -> dict[str, str]:
    """{word: name}: each name by the word that was typed for it alone, else by itself."""
    typed = {shape.spellings[w][0]: w for w in words if len(shape.spellings.get(w, ())) == 1}
    return {typed.get(name, name): name for name in names}


def _kept_each(keep: object) -> str | None:
    words = str(keep).split(":")
    return words[0] if len(words) > 1 and words[1] == "each" else None


def _with(job: Job, **changes: str) -> Job:
    kept = tuple(o for o in job if o.partition("=")[0] not in changes)
    return (*kept, *(f"{k}={v}" for k, v in changes.items()))
