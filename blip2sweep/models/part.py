"""A part of a model: its linear layers, its stacks of blocks, and what can absorb a scale. No torch here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from blip2sweep.errors import UserError

KINDS = ("attention", "crossattention", "mlp")
ROLES = VISION, CONNECTOR, LANGUAGE = ("vision", "connector", "language")
THIRDS = ("first", "middle", "last")


@dataclass(frozen=True)
class Linear:
    """One linear layer of a block.

    path: from the model's root. name: inside its block. block: its number in the part. clip: whether methods that
    search a range may clip its weights. unpackable: methods whose packed kernels cannot run it, because of what the
    model does around it.
    """

    path: str
    name: str
    kind: str
    stack: str
    block: int
    out_features: int
    in_features: int
    bias: bool
    clip: bool = True
    unpackable: tuple[str, ...] = ()

    @property
    def leaf(self) -> str:
        """The last word of its name, such as `fc1`."""
        return self.name.rsplit(".", 1)[-1]

    @property
    def weights(self) -> int:
        """The number of weights, without the bias."""
        return self.out_features * self.in_features


@dataclass(frozen=True)
class Stack:
    """`n` equal blocks under the module list `path`. Their numbers in the part begin with `first`.

    unread: how many more blocks the list has behind them whose outputs nothing reads. whole: `path` is one module and
    no list; it is the only block.
    """

    name: str
    path: str
    first: int
    n: int
    unread: int = 0
    whole: bool = False

    def block_path(self, block: int) -> str:
        """The module path of a block, by its number in the part."""
        return self.path if self.whole else f"{self.path}.{block - self.first}"

    @property
    def block_paths(self) -> list[str]:
        """The module paths of its blocks, in order."""
        return [self.block_path(self.first + i) for i in range(self.n)]

    def third(self, which: str) -> range:
        """The block numbers of the first, middle or last third: cut at n//3 and 2n//3, as in the published study."""
        edges = (0, self.n // 3, 2 * self.n // 3, self.n)
        i = THIRDS.index(which)
        return range(self.first + edges[i], self.first + edges[i + 1])


@dataclass(frozen=True)
class Fold:
    """Layers of a block that read one tensor, and the module before them that can absorb a scale of its channels.

    before: the module that makes the tensor, a norm or linear. into: names of the layers. piece: (i, n) where they read
    only the i-th of n equal runs of its outputs. output_of: the module on whose output the error of a scale is
    measured; by default on each layer's own. stacks: the stacks that have the fold; all where it is empty.
    """

    before: str
    into: tuple[str, ...]
    piece: tuple[int, int] = (0, 1)
    output_of: str | None = None
    stacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A piece of the model that is compressed on its own.

    stage: the step of the forward pass that it belongs to. role: its purpose, one of ROLES. reads_text: whether it
    reads pictures and text as one stream, as a language model does. unread: layers that are in the model but whose outputs
    nothing reads. They cannot be addressed: a cell that changed only them would be the baseline.
    """

    name: str
    stage: str
    role: str
    stacks: tuple[Stack, ...]
    linears: tuple[Linear, ...]
    folds: tuple[Fold, ...] = ()
    reads_text: bool = False
    unread: tuple[Linear, ...] = ()

    @property
    def n_blocks(self) -> int:
        return sum(s.n for s in self.stacks)

    @property
    def unread_blocks(self) -> range:
        """The numbers of the blocks behind the last one that anything reads."""
        return range(self.n_blocks, self.n_blocks + self.stacks[-1].unread)

    @cached_property
    def kinds(self) -> frozenset[str]:
        return frozenset(x.kind for x in self.linears)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the layers inside a block, in order, each once."""
        return tuple(dict.fromkeys(x.name for x in self.linears))

    def without(self, blocks: frozenset[int]) -> Part:
        """The part without the layers of these blocks. Its stacks, and the numbers of its blocks, stay."""
        left = tuple(x for x in self.linears if x.block not in blocks)
        return self if len(left) == len(self.linears) else replace(self, linears=left)

    def blocks(self, text: str, where: str | None = None, unread: bool = False) -> frozenset[int]:
        """The block numbers of `all`, a third, an index, an inclusive range, or a union of these with `+`.

        where: what was typed, for the message. unread: whether an index may be that of a block that nothing reads. Raises
        UserError for any other word, and for a block that the part lacks.
        """
        more = len(self.unread_blocks) if unread else 0
        return frozenset().union(*(self._blocks_one(w, where or f"blocks={text}", more) for w in str(text).split("+")))

    def _blocks_one(self, word: str, where: str, more: int) -> Iterable[int]:
        if word == "all":
            return range(self.n_blocks)
        if word in THIRDS:
            self._check_thirds(word, where)
            return [b for s in self.stacks for b in s.third(word)]
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
        if not found:
            raise UserError(
                f"{where}: '{word}' is not a choice of blocks; right: all, first, middle, last, an index, "
                f"a range such as 0-3, a union of these with '+', or each"
            )
        lo, hi = int(found[1]), int(found[2] or found[1])
        if lo > hi or hi >= self.n_blocks + more:
            unread = "" if lo > hi or hi >= self.unread_blocks.stop else " (later ones reach nothing)"
            raise UserError(
                f"{where}: '{word}' is outside {self.name}, whose blocks are 0-{self.n_blocks + more - 1}{unread}"
            )
        return range(lo, hi + 1)

    def _check_thirds(self, word: str, where: str) -> None:
        """Raise UserError where the part has a module that is no list of blocks."""
        if any(s.whole for s in self.stacks):
            right = " or ".join(["all", *(["0"] if self.n_blocks == 1 else [f"numbers from 0 to {self.n_blocks - 1}"])])
            raise UserError(f"{where}: {self.name} is no list of blocks, so it has no {word} third; right: {right}")

    def layers(self, text: str) -> frozenset[str]:
        """The names of the layers of `all`, a kind, a leaf name, or a union of these with `+`.

        Empty where there are none.
        """
        return frozenset().union(*(self._layers_one(word) for word in str(text).split("+")))

    def _layers_one(self, word: str) -> Iterable[str]:
        if word == "all":
            return self.names
        if word in KINDS:
            return {x.name for x in self.linears if x.kind == word}
        return {n for n in self.names if n == word or n.endswith("." + word)}

    def select(self, blocks: frozenset[int], layers: frozenset[str]) -> tuple[bool, ...]:
        """For each linear of the part, whether it is in these blocks and has one of these names."""
        return tuple(x.block in blocks and x.name in layers for x in self.linears)
