"""A step of a recipe: one kind of compression as a module, and the entries `(site, spec)` that it makes of its options.

A recipe is a list of steps in order. Quantization is one of them. Planning reads this, so torch is not imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from blip2sweep import outside
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.part import Linear, Part

if TYPE_CHECKING:
    from torch import nn

    from blip2sweep.compression.undo import Undo

DROP, SPARSITY, QUANTIZE, RECOVER = "drop_blocks", "sparsity", "quantize", "recover"
# Kinds in the order in which they are applied; imported when a recipe has one.
STEPS: dict[str, str] = {
    DROP: "blip2sweep.compression.drop_blocks",
    SPARSITY: "blip2sweep.compression.sparsity.step",
    QUANTIZE: "blip2sweep.compression.quantize.step",
    RECOVER: "blip2sweep.compression.recover.step",
}

FLOAT_BITS = 32  # of a number that is not compressed, as long as no dtype is known

SpecFields = dict[str, object]  # the fields of a spec, as JSON


# ---- where


class Site(Protocol):
    """What an entry changes: a linear layer, a block or a part. path: its one name in keys and rows, a module path."""

    @property
    def path(self) -> str: ...

    @property
    def block(self) -> int:
        """The number of the block that it is in, or begins with."""


@dataclass(frozen=True)
class Block:
    """One block. path: of its module. block: its number in the part."""

    path: str
    block: int


@dataclass(frozen=True)
class Whole:
    """A whole part. path: the paths of its stacks, joined with `+`. So the name of the part is in no key."""

    path: str
    block: int = 0


def sites(part: Part, selected: Sequence[bool], level: str) -> tuple[Site, ...]:
    """The sites of a level that hold a selected linear layer. level: `layer`, `block` or `part`.

    selected: for each of the part's linears.
    """
    layers = [x for x, hit in zip(part.linears, selected, strict=True) if hit]
    if level == "layer":
        return tuple(layers)
    if level == "part":
        return (Whole("+".join(s.path for s in part.stacks)),)
    return tuple(_block(part, i) for i in sorted({x.block for x in layers}))


def _block(part: Part, number: int) -> Block:
    stack = next(s for s in part.stacks if s.first <= number < s.first + s.n)
    return Block(stack.block_path(number), number)


def parse_target(text: object, where: str) -> tuple[str, str, str]:
    """(part, blocks, layers) of `part:blocks:layers`. blocks and layers are `all` by default."""
    words = str(text).split(":")
    if not 1 <= len(words) <= 3 or not all(words):
        raise UserError(f"{where}={text}: not a target; right: part:blocks:layers, such as vision:0-12:mlp")
    name, blocks, layers = (*words, "all", "all")[:3]
    return name, blocks, layers


def sites_of(text: object, anatomy: Anatomy, level: str, where: str) -> dict[str, tuple[Site, ...]]:
    """{part: sites} of a target. A role means all parts that have it.

    level: of the sites. where: the config key, for messages. Raises UserError for a target that meets nothing, or that
    is finer than the level.
    """
    if text is None:
        raise UserError(f"{where} is not set; right: {where}=part{':blocks' if level != 'part' else ''}")
    word, blocks, layers = parse_target(text, where)
    finer = {"part": blocks != "all" or layers != "all", "block": layers != "all"}
    if finer.get(level):
        right = word if level == "part" else f"{word}:{blocks}"
        raise UserError(f"{where}={text}: such a step takes a whole {level}; right: {right}")
    found: dict[str, tuple[Site, ...]] = {}
    for name in anatomy.resolve_names(word, f"{where}={text}"):
        part = anatomy.parts[name.partition(".")[0]]
        own = sites(part, anatomy.mask(name, blocks, layers, f"{where}={text}"), level)
        found[part.name] = (*found.get(part.name, ()), *own)
    return found


def layers_in(part: Part, site: Site) -> Iterator[Linear]:
    """The part's linear layers in a site."""
    if isinstance(site, Linear):
        yield site
    else:
        yield from (x for x in part.linears if isinstance(site, Whole) or x.block == site.block)


# ---- what


class Stored(NamedTuple):
    """What one linear layer takes.

    values: weights that are stored. value_bits: of each. extra_bits: of scales, zero points, indices and factors.
    bias_bits: of the whole bias. flops: for each token. number_bits: of a number that is not compressed, such as a
    scale: those of the dtype in which the layer's stage is stored.
    """

    values: int
    value_bits: int
    extra_bits: int
    bias_bits: int
    flops: int
    number_bits: int = FLOAT_BITS

    @property
    def weight_bits(self) -> int:
        return self.values * self.value_bits + self.extra_bits


def plain(layer: Linear, number_bits: int = FLOAT_BITS) -> Stored:
    """A layer without compression: number_bits for each number, one multiplication and one addition for each weight."""
    bias = layer.out_features * number_bits if layer.bias else 0
    return Stored(layer.weights, number_bits, 0, bias, 2 * layer.weights, number_bits)


class Spec(Protocol):
    """What happens to one site. Specs are frozen and hashable."""

    def as_dict(self) -> SpecFields:
        """Its one canonical form."""

    @property
    def needs(self) -> frozenset[str]:
        """What has to be measured or trained first: `hessian`, `ranges`, `training`."""

    def measured_on(self, digest: str) -> Spec:
        """The same spec with the name of what it is measured on, where it needs something."""

    def first_block(self, site: Site) -> int:
        """The number of the first block whose output it changes."""

    def stored(self, layer: Linear, before: Stored) -> Stored:
        """What a layer in the site takes after it. before: what it takes after the steps before.

        So steps compose in any order.
        """


Pair = tuple[Site, Spec]


@dataclass(frozen=True, eq=False)
class Entries:
    """What one step does to one part: pairs in the order of computation, and the config keys that made them."""

    kind: str
    pairs: tuple[Pair, ...] = ()
    used: frozenset[str] = frozenset()


class Step(Protocol):
    """The module of a kind of step. Its `apply` imports torch when it is called.

    LEVEL: of its sites, `layer`, `block` or `part`. AFTER: whether it comes after quantization by default. SEMANTICS:
    the number of the last change of its results (see blip2sweep/recipe/semantics.py).
    """

    LEVEL: str
    AFTER: bool
    SEMANTICS: int

    def resolve(
        self, options: Mapping[str, object], anatomy: Anatomy, where: str, runs: bool = True
    ) -> dict[str, Entries]:
        """{part: entries} of the options, with the full config keys that made them.

        where: the config key of the options. runs: the cell is computed here, so libraries must be installed. Raises
        UserError, one line, for options that are unknown or wrong, or that meet nothing.
        """

    def identity(self, part: Part, pairs: Sequence[Pair]) -> Mapping[str, SpecFields]:
        """{path of a site: spec} as keys have it. Two lists of pairs that do the same thing have one identity."""

    def to_entry(self, spec: Spec) -> SpecFields:
        """The spec as a row's recipe has it."""

    def from_entry(self, entry: Mapping[str, object]) -> Spec:
        """The inverse of `to_entry`. Raises UserError."""

    def text(self, entry: Mapping[str, object]) -> str:
        """The spec in one word for people, such as `rtn4/channel`."""

    def apply(self, model: nn.Module, pairs: Sequence[Pair], undo: Undo, made: Mapping[str, object]) -> None:
        """Apply the pairs to a model. Every change goes through `undo`.

        made: {path of a site: what was measured or trained for it}.
        """


class Simulates(Protocol):
    """`simulates`, which a step may have besides: of a step without it no latency is measured."""

    def __call__(self, spec: Spec) -> str | None:
        """Why a model with the spec in it does not take the time that it would take in use, in a few words for people.
        None where its kernels really run."""


def step(kind: str, where: str = "step") -> Step:
    """The module of a kind. where: the config key, for the message. Raises UserError for an unknown kind."""
    return cast(Step, outside.module_of("compression", kind, STEPS, Step, f"{where}.{kind}: unknown step"))


def as_dicts(pairs: Iterable[Pair]) -> dict[str, SpecFields]:
    """{path of a site: spec}: the `Step.identity` of a step whose specs each mean one thing."""
    return {site.path: spec.as_dict() for site, spec in pairs}
