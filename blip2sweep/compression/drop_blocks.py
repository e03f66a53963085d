"""Whole blocks that are left out: the first step of a recipe. Numbers of blocks stay those of the original model.

`drop_blocks=connector:6-11+language:28-31`: pieces joined with `+`. `part:blocks` begins a part, a piece without a colon
continues the part before it. `2@last` is two blocks of each stack in an order (ORDERS). Planning makes numbers of it, so one
set of blocks has one key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from blip2sweep.compression.step import (
    DROP,
    Block,
    Entries,
    Pair,
    Site,
    Spec,
    SpecFields,
    Stored,
    as_dicts,
    parse_target,
)
from blip2sweep.errors import UserError, nearest
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.part import Linear, Part, Stack

if TYPE_CHECKING:
    from torch import nn

    from blip2sweep.compression.undo import Undo

LEVEL, AFTER, SEMANTICS = "block", False, 1
INFLUENCE = "influence"
ORDERS = ("first", "middle", "last", INFLUENCE)
GRAMMAR = "part:blocks, such as language:28-31, connector:each or vision:2@middle, joined with +"

Numbers = dict[str, frozenset[int]]  # {part: numbers of blocks}
OrderOf = Callable[[Part, Stack], Sequence[int]]  # the numbers of a stack's blocks, those of least influence first


@dataclass(frozen=True)
class Dropped:
    """A block that returns its input."""

    needs: frozenset[str] = frozenset()

    def as_dict(self) -> SpecFields:
        return {}

    def measured_on(self, digest: str) -> Dropped:
        return self

    def first_block(self, site: Site) -> int:
        return site.block

    def stored(self, layer: Linear, before: Stored) -> Stored:
        return Stored(0, 0, 0, 0, 0, before.number_bits)


# ---- words


def parse(text: str) -> list[tuple[str, str]]:
    """[(word for a part, word for blocks)] in the order written. Raises UserError, one line, for any other text."""
    found: list[tuple[str, str]] = []
    for word in text.split("+"):
        part, colon, blocks = word.rpartition(":")
        part = part if colon else (found[-1][0] if found else "")
        if not part or not blocks or ":" in part or part in ("all", "none"):
            raise UserError(f"{DROP}={text}: '{word}' names no blocks of a part; right: {GRAMMAR}")
        found.append((part, blocks))
    return found


def asks_influence(text: object) -> bool:
    """Whether blocks are chosen by a measurement."""
    return text is not None and f"@{INFLUENCE}" in str(text)


def numbers(text: str, anatomy: Anatomy, order_of: OrderOf | None = None) -> Numbers:
    """The blocks that a text means. order_of: by influence; None where nothing is measured.

    Raises UserError, one line, for a part, block or order that is not there, and where a stack would have no block left.
    """
    where, found = f"{DROP}={text}", dict[str, set[int]]()
    for word, blocks in parse(text):
        for name in anatomy.resolve_names(word, where):
            _check_residual(anatomy, [name.partition(".")[0]], where)
            found.setdefault(name.partition(".")[0], set()).update(_blocks(anatomy, name, blocks, where, order_of))
    check_left(anatomy, found, where)
    return {part: frozenset(found[part]) for part in anatomy.parts if part in found}


def check(text: str, anatomy: Anatomy) -> None:
    """Raise UserError, one line, for what a text names wrongly, before anything is measured for it."""
    numbers(text, anatomy, lambda part, stack: ())


def _blocks(anatomy: Anatomy, name: str, word: str, where: str, order_of: OrderOf | None) -> Iterable[int]:
    """The numbers in the part of the blocks that a word means in a part or stack."""
    count, at, order = word.partition("@")
    if not at:
        _refuse_each(word, where)
        return anatomy.blocks(name, word, where, unread=True)
    if order not in ORDERS:
        raise UserError(f"{where}: '{order}' is no order of blocks; {nearest(order, ORDERS)}")
    part = anatomy.parts[name.partition(".")[0]]
    stacks = [s for s in part.stacks if name in (part.name, f"{part.name}.{s.name}")]
    return [
        number for s in stacks for number in _ordered(part, s, _count(count, s, order, where), order, where, order_of)
    ]


def _refuse_each(word: str, where: str) -> None:
    if word == "each":
        raise UserError(f"{where}: `each` is one cell per block, and this is one cell; right: numbers of blocks")


def _count(word: str, stack: Stack, order: str, where: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", word) or int(word) >= stack.n:
        most = f"a number from 1 to {stack.n - 1}, such as 1@{order}" if stack.n > 1 else "none: it has one block"
        raise UserError(f"{where}: '{word}' of {stack.n} blocks cannot be dropped; right: {most}")
    return int(word)


def _ordered(part: Part, stack: Stack, count: int, order: str, where: str, order_of: OrderOf | None) -> Iterable[int]:
    if order == INFLUENCE:
        if order_of is None:
            raise UserError(f"{where}: influence is measured when a sweep is planned; right: numbers of blocks")
        return order_of(part, stack)[:count]
    start = {"first": 0, "middle": (stack.n - count) // 2, "last": stack.n - count}[order]
    return range(stack.first + start, stack.first + start + count)


def _check_residual(anatomy: Anatomy, names: Iterable[str], where: str) -> None:
    """Raise UserError for parts whose blocks put out something else than what they get with an addition."""
    changing = {s.name for s in anatomy.stages if not s.residual}
    wrong = [n for n in names if anatomy.parts[n].stage in changing or any(s.whole for s in anatomy.parts[n].stacks)]
    if wrong:
        right = " or ".join(n for n in anatomy.parts if n not in wrong)
        raise UserError(
            f"{where}: {' and '.join(wrong)} of {anatomy.model} is no list of blocks that add to what they get, so none "
            f"of it can be left out; right: blocks of {right}"
        )


def check_left(anatomy: Anatomy, dropped: Mapping[str, Iterable[int]], where: str) -> None:
    """Raise UserError, one line, for blocks that cannot be left out, and for every stack that would have none left.

    dropped: {part: numbers of blocks}.
    """
    _check_residual(anatomy, (name for name, blocks in dropped.items() if blocks), where)
    stacks = [
        (anatomy.parts[name], s, {*blocks}) for name, blocks in dropped.items() for s in anatomy.parts[name].stacks
    ]
    empty = [
        f"all {s.n} blocks of {part.name}{f'.{s.name}' if len(part.stacks) > 1 else ''}"
        for part, s, blocks in stacks
        if blocks.issuperset(range(s.first, s.first + s.n))
    ]
    if empty:
        raise UserError(f"{where}: drops {' and '.join(empty)}; right: at least one of them stays")


# ---- entries


def resolve(config: Mapping[str, object], anatomy: Anatomy, where: str = DROP, runs: bool = True) -> dict[str, Entries]:
    """{part: entries} of the config of a cell, in which planning has written numbers for what was measured."""
    text = config.get(where)
    if text is None or str(text) == "none":
        return {}
    return {part: _entries(anatomy, part, blocks) for part, blocks in numbers(str(text), anatomy).items()}


@lru_cache(maxsize=65536)
def _entries(anatomy: Anatomy, name: str, blocks: frozenset[int]) -> Entries:
    """Memoised, so that cells share their parts."""
    pairs = tuple((site, Dropped()) for site in _sites(anatomy.parts[name], blocks))
    return Entries(DROP, pairs, frozenset({DROP}))


def _sites(part: Part, blocks: Iterable[int]) -> tuple[Block, ...]:
    own = {i: s for s in part.stacks for i in range(s.first, s.first + s.n + s.unread)}
    return tuple(Block(own[i].block_path(i), i) for i in sorted(blocks))


def dropped_sites(target: object, anatomy: Anatomy, where: str) -> dict[str, tuple[Block, ...]]:
    """{part: blocks} of a target `part:blocks`, as rows and recipe files have it."""
    word, blocks, layers = parse_target(target, where)
    if layers != "all":
        raise UserError(f"{where}={target}: whole blocks are dropped; right: {word}:{blocks}")
    found: dict[str, tuple[Block, ...]] = {}
    for name in anatomy.resolve_names(word, where):
        part = anatomy.parts[name.partition(".")[0]]
        own = _sites(part, anatomy.blocks(name, blocks, f"{where}={target}", unread=True))
        found[part.name] = (*found.get(part.name, ()), *own)
    return found


def identity(part: Part, pairs: Sequence[Pair]) -> dict[str, SpecFields]:
    return as_dicts(pairs)


def to_entry(spec: Spec) -> SpecFields:
    return spec.as_dict()


def from_entry(entry: Mapping[str, object]) -> Dropped:
    if entry:
        raise UserError(f"step {DROP} has no option {next(iter(entry))}; right: target: part:blocks alone")
    return Dropped()


def text(entry: Mapping[str, object]) -> str:
    return "dropped"


# ---- the model


def apply(model: nn.Module, pairs: Sequence[Pair], undo: Undo, made: Mapping[str, object]) -> None:
    """Drop the blocks. See blip2sweep/models/dropped.py for what runs in their place."""
    from blip2sweep.models.dropped import changes

    for change in changes(model, frozenset(site.path for site, _ in pairs)):
        undo.attribute(*change)
