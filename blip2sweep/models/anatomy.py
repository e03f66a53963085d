"""Where a model's parts, blocks and layers are: targets such as `vision:0-12:mlp` become module paths.

An anatomy is read from `conf/model/*.yaml` alone, so planning needs neither weights nor torch. `verify` compares it
with the module tree whenever a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from blip2sweep.errors import DroppedTarget, UserError, nearest
from blip2sweep.models.anatomy_config import check_parts, read_part
from blip2sweep.models.architecture import Stage, family, stages
from blip2sweep.models.part import Linear, Part
from blip2sweep.models.places import places
from blip2sweep.models.roles import check_names, resolve_names, spellings
from blip2sweep.wire.model_section import ModelSection


@dataclass(frozen=True, eq=False)
class Anatomy:
    """All parts and stages of one model in the order of computation.

    tied: groups of parameter names that are one tensor. not_addressable: {role: why the model has no part of it}.
    dropped: {part: numbers of blocks} whose layers are left out of the parts (see `without`).
    """

    model: str
    parts: dict[str, Part]
    stages: tuple[Stage, ...]
    tied: tuple[tuple[str, ...], ...] = ()
    not_addressable: Mapping[str, str] = field(default_factory=dict)
    dropped: Mapping[str, frozenset[int]] = field(default_factory=dict)
    _masks: dict[tuple[str, str, str], tuple[bool, ...]] = field(default_factory=dict)
    _without: dict[str, Anatomy] = field(default_factory=dict)

    @property
    def last_stage(self) -> str:
        """The name of the language model's stage, which reads pictures and text."""
        return self.stages[-1].name

    @property
    def addressable(self) -> list[str]:
        """The names of parts, and `part.stack` of the stacks of a part that has several."""
        split = [f"{p.name}.{s.name}" for p in self.parts.values() if len(p.stacks) > 1 for s in p.stacks]
        return [*self.parts, *split]

    @cached_property
    def spellings(self) -> dict[str, tuple[str, ...]]:
        """{word: the addressable names it means} of all words of `part=`: names, roles and stacks of a role."""
        return spellings(self.parts, self.addressable)

    def role(self, name: str) -> tuple[Part, ...]:
        """The parts that have a role, in the order of computation."""
        return tuple(p for p in self.parts.values() if p.role == name)

    def without(self, dropped: Mapping[str, frozenset[int]]) -> Anatomy:
        """The anatomy whose parts lack the layers of some blocks. Stacks and numbers of blocks stay. Memoised.

        dropped: {part: numbers of blocks}.
        """
        named = {name: blocks for name, blocks in dropped.items() if blocks}
        if not named:
            return self
        text = str(sorted((name, sorted(blocks)) for name, blocks in named.items()))
        if text not in self._without:
            parts = {n: p.without(named.get(n, frozenset())) for n, p in self.parts.items()}
            self._without[text] = replace(self, parts=parts, dropped=named, _masks={}, _without={})
        return self._without[text]

    def part_names(self, text: str, where: str = "part") -> list[str]:
        """`all`, `none`, or a union with `+` -> addressable names, in the order written, each once."""
        if str(text) in ("all", "none"):
            return list(self.parts) if text == "all" else []
        words = str(text).split("+")
        return list(dict.fromkeys(name for word in words for name in self.resolve_names(word, f"{where}={text}")))

    def resolve_names(self, word: str, where: str) -> tuple[str, ...]:
        """The addressable names that one word of a union means (see `roles.resolve_names`)."""
        return resolve_names(self, word, where)

    def mask(self, part: str, blocks: str, layers: str, where: str = "") -> tuple[bool, ...]:
        """For each linear of the part, in the order of `Part.linears`, whether the target names it. Memoised.

        part: a part, or one of its stacks (`llm.encoder`), whose blocks count from 0. The mask of a stack is over the
        whole part. where: what was typed, for the message. Raises UserError for a target that names no layer.
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
            left = " in the blocks that drop_blocks leaves" if parent.name in self.dropped else ""
            raise UserError(
                f"{where}: {name} of {self.model} has no layer '{layers}'{left}; {nearest(layers, _words(chosen))}"
            )
        selected = chosen.select(chosen.blocks(blocks, where), names)
        if not any(selected):
            self._refuse_dropped(name, blocks, where)
            raise UserError(f"{where}: nothing matches in {name} of {self.model}: no '{layers}' in blocks {blocks}")
        inside = {x.path for x, hit in zip(chosen.linears, selected, strict=True) if hit}
        return tuple(x.path in inside for x in parent.linears)

    def _refuse_dropped(self, name: str, blocks: str, where: str) -> None:
        """Raise UserError where all blocks of a target are dropped."""
        gone = self.dropped.get(name.partition(".")[0], frozenset())
        if self.blocks(name, blocks, where) <= gone:
            raise DroppedTarget(f"{where}: drop_blocks drops all of them; right: blocks of {name} that stay")

    def _stack_part(self, name: str) -> tuple[Part, Part]:
        """(whole part, the part to select in). For `llm.encoder` the second has only that stack, its blocks from 0."""
        if name not in self.addressable:
            raise UserError(f"model {self.model} has no part '{name}'; {nearest(name, self.addressable)}")
        base, _, stack = name.partition(".")
        whole = self.parts[base]
        if not stack:
            return whole, whole
        s = next(s for s in whole.stacks if s.name == stack)
        own = [x for x in whole.linears if x.stack == stack]
        alone = (replace(s, first=0),)
        return whole, replace(
            whole, name=name, stacks=alone, linears=tuple(_renumber(x, s.first) for x in own), folds=()
        )

    def blocks(self, name: str, text: str, where: str, unread: bool = False) -> frozenset[int]:
        """The numbers in the part of the blocks that a text means in a part or stack (see `Part.blocks`)."""
        whole, chosen = self._stack_part(name)
        first = next(s.first for s in whole.stacks if s.name == chosen.stacks[0].name)
        return frozenset(first + i for i in chosen.blocks(text, where, unread))

    def n_blocks(self, name: str) -> int:
        return self._stack_part(name)[1].n_blocks

    def verify(self, linears: Mapping[str, tuple[int, int, bool]], blocks: Mapping[str, int]) -> None:
        """Compare the anatomy with the model's module tree.

        linears: {path: (out_features, in_features, has bias)} of every nn.Linear inside the parts' stacks. blocks:
        {stack path: number of blocks}. Raises UserError on the first difference. So a module that a transformers
        release renames is an error, and never a layer that is silently left alone.
        """
        for stack in (s for p in self.parts.values() for s in p.stacks):
            if blocks.get(stack.path) != stack.n + stack.unread:
                raise UserError(
                    f"model {self.model}: {stack.path} has {blocks.get(stack.path, 'no')} blocks, conf/model says "
                    f"{stack.n + stack.unread}"
                )
        layers = [x for p in self.parts.values() for x in (*p.linears, *p.unread)]
        expected = {x.path: (x.out_features, x.in_features, x.bias) for x in layers}
        _same(self.model, expected, linears)


def _renumber(x: Linear, first: int) -> Linear:
    return replace(x, block=x.block - first)


def _words(part: Part) -> list[str]:
    return ["all", *sorted(part.kinds), *sorted({n.rsplit(".", 1)[-1] for n in part.names})]


def _same(
    model: str, expected: Mapping[str, tuple[int, int, bool]], found: Mapping[str, tuple[int, int, bool]]
) -> None:
    for path in sorted(expected.keys() ^ found.keys()):
        found_in, not_in = (
            ("in the model", "not in conf/model") if path in found else ("in conf/model", "not in the model")
        )
        raise UserError(
            f"model {model}: linear layer {path} is {found_in} but {not_in}; mend the layers of conf/model/{model}.yaml"
        )
    for path, shape in expected.items():
        if found[path] != shape:
            raise UserError(f"model {model}: {path} is (out, in, bias) {found[path]}, conf/model says {shape}")


def anatomy(model: ModelSection) -> Anatomy:
    """The anatomy of a composed model config.

    Parts and stacks come in the order of computation, whatever their order in the config. Raises UserError where they
    are not written as conf/model/_vit_qformer.yaml says, or are not lists of blocks of the architecture.
    """
    check_parts(model)
    paths = {name: {s: str(e["path"]) for s, e in spec["stacks"].items()} for name, spec in model["parts"].items()}
    order = stages(model)
    found = places(order, str(model["family"]), paths)
    cross, sizes = family(model).behind_pictures, model["config"]
    parts = {name: read_part(name, place, model["parts"][name], sizes, cross) for name, place in found.items()}
    check_names(str(model["name"]), parts)
    tied = tuple(tuple(names) for names in model.get("tied") or ())
    return Anatomy(model["name"], parts, order, tied, model.get("not_addressable") or {})
