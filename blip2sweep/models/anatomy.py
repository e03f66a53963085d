"""Where a model's parts, blocks and layers are: targets such as `vision:0-12:mlp` resolved to module paths.

Anatomy is data. It is read from `conf/model/*.yaml` alone, so planning needs neither weights nor torch; `verify` holds
it against the real module tree whenever a model is loaded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from blip2sweep.errors import UserError, nearest
from blip2sweep.models.anatomy_config import KINDS, check_parts
from blip2sweep.models.architecture import Stage, stages
from blip2sweep.models.places import Place, places
from blip2sweep.models.roles import check_names, own_names, spellings

THIRDS = ("first", "middle", "last")


@dataclass(frozen=True)
class Linear:
    """One linear layer of a block: `path` from the model's root, `name` inside its block, `block` counted over the part.

    unpackable: methods whose packed kernels cannot run it, for what the model does around it.
    """

    path: str
    name: str
    kind: str
    stack: str
    block: int
    out_features: int
    in_features: int
    bias: bool
    clip: bool = True  # whether methods that search a range may clip its weights
    unpackable: tuple[str, ...] = ()

    @property
    def leaf(self) -> str:
        """The last word of its name."""
        return self.name.rsplit(".", 1)[-1]

    @property
    def weights(self) -> int:
        """Number of weights (the bias not counted)."""
        return self.out_features * self.in_features


@dataclass(frozen=True)
class Stack:
    """A run of equal blocks: `n` blocks under the module list `path`, numbered from `first` over the part."""

    name: str
    path: str
    first: int
    n: int

    def third(self, which: str) -> range:
        """First, middle or last third, cut at n//3 and 2n//3 as in the published study."""
        edges = (0, self.n // 3, 2 * self.n // 3, self.n)
        i = THIRDS.index(which)
        return range(self.first + edges[i], self.first + edges[i + 1])


@dataclass(frozen=True)
class Fold:
    """Layers of a block that read one tensor, and what makes that tensor and can absorb a scale of its channels.

    before: a norm or linear; into: names of the layers; piece: (i, n) where only the i-th of n equal runs of `before`'s
    outputs is read; output_of: the module on whose output a scale is judged (default: each layer's own).
    """

    before: str
    into: tuple[str, ...]
    piece: tuple[int, int] = (0, 1)
    output_of: str | None = None
    stacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A piece of the model compressed on its own. `stage`: the step of the forward pass that it belongs to; `role`: what it is
    for, a word of `roles.ROLES`; reads_text: it is the last one, of the language model, which sees pictures and text."""

    name: str
    stage: str
    role: str
    stacks: tuple[Stack, ...]
    linears: tuple[Linear, ...]
    folds: tuple[Fold, ...] = ()
    reads_text: bool = False

    @property
    def n_blocks(self) -> int:
        return sum(s.n for s in self.stacks)

    @cached_property
    def kinds(self) -> frozenset[str]:
        return frozenset(x.kind for x in self.linears)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the layers inside a block, in order, each once."""
        return tuple(dict.fromkeys(x.name for x in self.linears))

    def blocks(self, text: str, where: str | None = None) -> frozenset[int]:
        """Block numbers of `all`, a third, an index, an inclusive range, or a union of these with `+`."""
        return frozenset().union(*(self._blocks_one(w, where or f"blocks={text}") for w in str(text).split("+")))

    def _blocks_one(self, word: str, where: str) -> Iterable[int]:
        if word == "all":
            return range(self.n_blocks)
        if word in THIRDS:
            return [b for s in self.stacks for b in s.third(word)]
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
        if not found:
            raise UserError(
                f"{where}: '{word}' is not a choice of blocks; right: all, first, middle, last, an index, "
                f"a range such as 0-3, a union of these with '+', or each"
            )
        lo, hi = int(found[1]), int(found[2] or found[1])
        if lo > hi or hi >= self.n_blocks:
            raise UserError(f"{where}: '{word}' is outside {self.name}, whose blocks are 0-{self.n_blocks - 1}")
        return range(lo, hi + 1)

    def layers(self, text: str) -> frozenset[str]:
        """Names of the layers of `all`, a kind, a leaf name, or a union of these with `+`; empty where there are none."""
        return frozenset().union(*(self._layers_one(word) for word in str(text).split("+")))

    def _layers_one(self, word: str) -> Iterable[str]:
        if word == "all":
            return self.names
        if word in KINDS:
            return {x.name for x in self.linears if x.kind == word}
        return {n for n in self.names if n == word or n.endswith("." + word)}

    def select(self, blocks: frozenset[int], layers: frozenset[str]) -> tuple[bool, ...]:
        """Membership of each of the part's linears."""
        return tuple(x.block in blocks and x.name in layers for x in self.linears)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """All parts and stages of one model in the order of computation, and the weights that are stored under two names."""

    model: str
    parts: dict[str, Part]
    stages: tuple[Stage, ...]
    tied: tuple[tuple[str, ...], ...] = ()
    _masks: dict[tuple[str, str, str], tuple[bool, ...]] = field(default_factory=dict)

    @property
    def last_stage(self) -> str:
        """Of the language model: the one whose input is pictures and text."""
        return self.stages[-1].name

    @property
    def addressable(self) -> list[str]:
        """The model's own names that `part=` takes: parts, and `part.stack` where a part has several stacks."""
        split = [f"{p.name}.{s.name}" for p in self.parts.values() if len(p.stacks) > 1 for s in p.stacks]
        return [*self.parts, *split]

    @cached_property
    def spellings(self) -> dict[str, tuple[str, ...]]:
        """{word: the addressable names it means}: these names, roles, and stacks of a role."""
        return spellings(self.parts, self.addressable)

    def role(self, name: str) -> tuple[Part, ...]:
        """The parts that have a role, in the order of computation."""
        return tuple(p for p in self.parts.values() if p.role == name)

    def part_names(self, text: str, where: str = "part") -> list[str]:
        """`all`, `none`, or a union with `+` -> addressable names, in the order written, each once."""
        if str(text) in ("all", "none"):
            return list(self.parts) if text == "all" else []
        words = str(text).split("+")
        return list(dict.fromkeys(name for word in words for name in self.own_names(word, f"{where}={text}")))

    def own_names(self, word: str, where: str) -> tuple[str, ...]:
        """The addressable names that one word of a union means (see `roles.own_names`)."""
        return own_names(self, word, where)

    def mask(self, part: str, blocks: str, layers: str, where: str = "") -> tuple[bool, ...]:
        """Which linears of the part (its parent part, for `llm.encoder`) a target names. Memoised.

        Raises UserError when the target is empty: a cell that touches nothing it names is refused.
        """
        wanted = (part, str(blocks), str(layers))
        if wanted not in self._masks:
            self._masks[wanted] = self._mask(*wanted, where)
        return self._masks[wanted]

    def _mask(self, name: str, blocks: str, layers: str, where: str) -> tuple[bool, ...]:
        parent, chosen = self._stack_part(name)
        where = where or f"part={name} blocks={blocks} layers={layers}"
        names = chosen.layers(layers)
        if not names:
            raise UserError(
                f"{where}: {name} of {self.model} has no layer '{layers}'; {nearest(layers, _words(chosen))}"
            )
        kept = chosen.select(chosen.blocks(blocks, where), names)
        if not any(kept):
            raise UserError(f"{where}: nothing matches in {name} of {self.model}: no '{layers}' in blocks {blocks}")
        inside = {x.path for x, keep in zip(chosen.linears, kept, strict=True) if keep}
        return tuple(x.path in inside for x in parent.linears)

    def _stack_part(self, name: str) -> tuple[Part, Part]:
        """(whole part, the part to select in): for `llm.encoder` the second holds that stack alone, numbered from 0."""
        if name not in self.addressable:
            raise UserError(f"model {self.model} has no part '{name}'; {nearest(name, self.addressable)}")
        base, _, stack = name.partition(".")
        whole = self.parts[base]
        if not stack:
            return whole, whole
        s = next(s for s in whole.stacks if s.name == stack)
        own = [x for x in whole.linears if x.stack == stack]
        alone = (Stack(s.name, s.path, 0, s.n),)
        return whole, replace(
            whole, name=name, stacks=alone, linears=tuple(_renumber(x, s.first) for x in own), folds=()
        )

    def n_blocks(self, name: str) -> int:
        return self._stack_part(name)[1].n_blocks

    def verify(self, linears: Mapping[str, tuple[int, int, bool]], blocks: Mapping[str, int]) -> None:
        """Hold the anatomy against the real tree.

        linears: path -> (out_features, in_features, has bias) of every nn.Linear inside the parts' stacks;
        blocks: stack path -> number of blocks there. Raises UserError on the first difference, so that a renamed
        module in a new transformers release is an error and never a silent no-op.
        """
        for stack in (s for p in self.parts.values() for s in p.stacks):
            if blocks.get(stack.path) != stack.n:
                raise UserError(
                    f"model {self.model}: {stack.path} has {blocks.get(stack.path, 'no')} blocks, conf/model says {stack.n}"
                )
        expected = {x.path: (x.out_features, x.in_features, x.bias) for p in self.parts.values() for x in p.linears}
        _same(self.model, expected, linears)


def _renumber(x: Linear, first: int) -> Linear:
    return replace(x, block=x.block - first)


def _words(part: Part) -> list[str]:
    return ["all", *sorted(part.kinds), *sorted({n.rsplit(".", 1)[-1] for n in part.names})]


def _same(
    model: str, expected: Mapping[str, tuple[int, int, bool]], found: Mapping[str, tuple[int, int, bool]]
) -> None:
    for path in sorted(expected.keys() ^ found.keys()):
        have, want = ("in the model", "not in conf/model") if path in found else ("in conf/model", "not in the model")
        raise UserError(
            f"model {model}: linear layer {path} is {have} but {want}; mend the layers of conf/model/{model}.yaml"
        )
    for path, shape in expected.items():
        if found[path] != shape:
            raise UserError(f"model {model}: {path} is (out, in, bias) {found[path]}, conf/model says {shape}")


def anatomy(model: Mapping[str, Any]) -> Anatomy:
    """Build the anatomy from a composed `model` config (fields `name`, `family`, `parts`, `config`, `tied`).

    Parts and stacks come in the order of computation, whatever their order in the config. Raises UserError where they
    are no pieces of the architecture, or not written as conf/model/_vit_qformer.yaml says.
    """
    check_parts(model)
    paths = {name: {s: str(e["path"]) for s, e in spec["stacks"].items()} for name, spec in model["parts"].items()}
    order = stages(model)
    found = places(order, str(model["family"]), paths)
    parts = {name: _part(name, place, model["parts"][name], model["config"]) for name, place in found.items()}
    check_names(str(model["name"]), parts)
    return Anatomy(model["name"], parts, order, tuple(tuple(names) for names in model.get("tied") or ()))


def _part(name: str, place: Place, spec: Mapping[str, Any], sizes: Mapping[str, Any]) -> Part:
    stacks: list[Stack] = []
    for stack in place.stacks:
        entry = spec["stacks"][stack]
        stacks.append(Stack(stack, entry["path"], sum(s.n for s in stacks), _size(entry["blocks"], sizes)))
    layers = [(kind, layer, entry) for kind, entries in spec["layers"].items() for layer, entry in entries.items()]
    linears = [x for s in stacks for i in range(s.n) for x in _block(s, i, layers, sizes)]
    folds = tuple(_fold(f) for f in spec.get("folds") or ())
    role = spec.get("role") or place.role
    return Part(name, place.stage, role, tuple(stacks), tuple(linears), folds, reads_text=place.last)


def _fold(spec: Mapping[str, Any]) -> Fold:
    lists = {k: tuple(spec[k]) for k in ("into", "piece", "stacks") if k in spec}
    return Fold(**{**spec, **lists})


def _block(
    stack: Stack, i: int, layers: Sequence[tuple[str, str, Mapping[str, Any]]], sizes: Mapping[str, Any]
) -> Iterable[Linear]:
    for kind, name, entry in layers:
        if stack.name not in entry.get("stacks", [stack.name]) or i % _size(entry.get("every", 1), sizes):
            continue
        out, inn = (_size(x, sizes) for x in entry["shape"])
        path = f"{stack.path}.{i}.{name}"
        cannot, clip = tuple(entry.get("unpackable", ())), entry.get("clip", True)
        yield Linear(path, name, kind, stack.name, stack.first + i, out, inn, entry.get("bias", True), clip, cannot)


def _size(expression: str | int, sizes: Mapping[str, Any]) -> int:
    """A product of integers and dotted fields of the config, such as `3*vision_config.hidden_size`."""
    return math.prod(_factor(word.strip(), sizes) for word in str(expression).split("*"))


def _factor(word: str, sizes: Mapping[str, Any]) -> int:
    if word.isdigit():
        return int(word)
    node: Any = sizes
    for key in word.split("."):
        node = node[key]
    return int(node)
