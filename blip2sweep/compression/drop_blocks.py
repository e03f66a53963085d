"""Whole blocks that are left out: the first step of a recipe. Numbers of blocks stay those of the original model.

`drop_blocks=connector:6-11+language:28-31`: pieces joined with `+`. `part:blocks` begins a part, a piece without a colon
continues the part before it. `2@last` is two blocks of each stack in an order (ORDERS), resolved to numbers when a cell is
planned; so one set of blocks has one key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from blip2sweep.compression.step import DROP, Block, Entries, Pair, Site, Spec, SpecFields, Stored, as_dicts
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
        return Stored(0, 0, 0, 0, 0)


class Piece(NamedTuple):
    """One part of a text. part: the word for it. blocks: the words for its blocks, in their order."""

    part: str
    blocks: tuple[str, ...]


def parse(text: str, where: str = DROP) -> list[Piece]:
    """The pieces of a text. Raises UserError, one line, for a text that begins with no part or has an empty piece."""
    found: list[Piece] = []
    for word in text.split("+"):
        part, colon, blocks = word.rpartition(":")
        if not blocks or (colon and not part) or ":" in part or not (colon or found):
            raise UserError(f"{where}={text}: '{word}' names no blocks of a part; right: {GRAMMAR}")
        if colon:
            found.append(Piece(part, (blocks,)))
        else:
            found[-1] = Piece(found[-1].part, (*found[-1].blocks, blocks))
    return found


def resolve(config: Mapping[str, object], anatomy: Anatomy, where: str = DROP, runs: bool = True) -> dict[str, Entries]:
    """{part: entries} of the config of a cell."""
    text = config.get(where)
    if text is None or str(text) == "none":
        return {}
    dropped: dict[str, set[int]] = {}
    for piece in parse(str(text), where):
        for name in anatomy.resolve_names(piece.part, f"{where}={text}"):
            part = anatomy.parts[name.partition(".")[0]]
            stacks = [s for s in part.stacks if name in (part.name, f"{part.name}.{s.name}")]
            for word in piece.blocks:
                dropped.setdefault(part.name, set()).update(_blocks(anatomy, name, stacks, word, f"{where}={text}"))
    for name, blocks in dropped.items():
        check_some_left(anatomy.parts[name], blocks, f"{where}={text}")
    return {name: _entries(anatomy, name, frozenset(blocks), where) for name, blocks in dropped.items()}


@lru_cache(maxsize=65536)
def _entries(anatomy: Anatomy, name: str, blocks: frozenset[int], where: str) -> Entries:
    """The entries that leave these blocks of a part out. Memoised, so that cells share their parts."""
    part = anatomy.parts[name]
    sites = [Block(s.block_path(i), i) for s in part.stacks for i in range(s.first, s.first + s.n) if i in blocks]
    return Entries(DROP, tuple((site, Dropped()) for site in sites), frozenset({where}))


def check_some_left(part: Part, blocks: set[int], where: str) -> None:
    """Raise UserError where a stack would have no block left."""
    for s in part.stacks:
        if blocks.issuperset(range(s.first, s.first + s.n)):
            name = part.name if len(part.stacks) == 1 else f"{part.name}.{s.name}"
            raise UserError(f"{where}: drops all {s.n} blocks of {name}; right: at least one stays")


def _blocks(anatomy: Anatomy, name: str, stacks: Sequence[Stack], word: str, where: str) -> Iterator[int]:
    """The numbers in the part of the blocks that a word means in a part or stack."""
    count, at, order = word.partition("@")
    if not at:
        yield from anatomy.blocks(name, word, where)
        return
    if order not in ORDERS:
        raise UserError(f"{where}: '{order}' is no order of blocks; {nearest(order, ORDERS)}")
    for s in stacks:
        if not re.fullmatch(r"[1-9]\d*", count) or int(count) >= s.n:
            raise UserError(
                f"{where}: '{count}' is no number of blocks to drop; right: 1 to {s.n - 1}, as in 1@{order}"
            )
        yield from ordered(s, int(count), order, where)


def ordered(stack: Stack, count: int, order: str, where: str) -> range:
    """The first, middle or last `count` blocks of a stack, by their numbers in the part."""
    if order == INFLUENCE:
        raise UserError(f"{where}: the influence of blocks is not measured yet; right: first, middle or last")
    start = {"first": 0, "middle": (stack.n - count) // 2, "last": stack.n - count}[order]
    return range(stack.first + start, stack.first + start + count)


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


def apply(model: nn.Module, pairs: Sequence[Pair], undo: Undo, made: Mapping[str, object]) -> None:
    raise NotImplementedError("dropping blocks")
