"""Reads the parts of a model config. Their form is checked first, with all mistakes at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from blip2sweep.errors import UserError
from blip2sweep.models.fields import factors, field, size
from blip2sweep.models.part import KINDS, ROLES, Fold, Linear, Part, Stack
from blip2sweep.models.places import Place
from blip2sweep.wire.model_section import FoldSection, LayerSection, PartSection, StackSection

STACK, LAYER = {"path", "blocks", "unread"}, {"shape", "bias", "every", "stacks", "clip", "unpackable", "unread"}
FOLD = {"before", "into", "piece", "output_of", "stacks"}
NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)


# ---- the form


def check_parts(model: Mapping[str, object]) -> None:
    """Raise UserError, one line with all mistakes, where `parts` of a model config cannot be read."""
    parts, sizes = model.get("parts"), model.get("config") or {}
    if not isinstance(parts, Mapping) or not parts:
        raise UserError(
            f"model {model.get('name')}: parts={parts}; right: parts as conf/model/_vit_qformer.yaml has them"
        )
    wrong = [f"parts.{name}{mistake}" for name, part in parts.items() for mistake in _part_mistakes(part, sizes)]
    if wrong:
        raise UserError(f"model {model.get('name')}: {'; '.join(wrong)}")


def _part_mistakes(part: object, sizes: object) -> Iterator[str]:
    if not isinstance(part, Mapping):
        yield f" is {part}; right: stacks and layers"
        return
    if part.get("role") is not None and part["role"] not in ROLES:
        yield f".role={part['role']}; right: {', '.join(ROLES)}"
    stacks, layers = part.get("stacks"), part.get("layers")
    if not isinstance(stacks, Mapping) or not isinstance(layers, Mapping):
        yield " lacks stacks or layers; right: both, by name"
        return
    for name, stack in stacks.items():
        yield from (f".stacks.{name}{mistake}" for mistake in _field_mistakes(stack, STACK, {"path"}))
        if not NAME.fullmatch(str(name)):
            yield f".stacks.{name}: no name for a stack; right: letters, digits and _"
        if isinstance(stack, Mapping) and "blocks" in stack:
            yield from (f".stacks.{name}.blocks{mistake}" for mistake in _size_mistakes(stack["blocks"], sizes))
        if isinstance(stack, Mapping):
            yield from (f".stacks.{name}{mistake}" for mistake in _unread_mistakes(stack))
    yield from _layer_mistakes(layers, stacks, sizes)
    names = {layer for entries in layers.values() if isinstance(entries, Mapping) for layer in entries}
    for i, fold in enumerate(part.get("folds") or ()):
        yield from (f".folds[{i}]{mistake}" for mistake in _fold_mistakes(fold, names, stacks))


def _layer_mistakes(layers: Mapping[str, object], stacks: Mapping[str, object], sizes: object) -> Iterator[str]:
    for kind, entries in layers.items():
        if kind not in KINDS or not isinstance(entries, Mapping):
            yield f".layers.{kind}; right: {', '.join(KINDS)}, each with layers by name"
            continue
        for name, entry in entries.items():
            where = f".layers.{kind}.{name}"
            yield from (where + mistake for mistake in _field_mistakes(entry, LAYER, {"shape"}))
            if isinstance(entry, Mapping):
                yield from (where + mistake for mistake in _entry_mistakes(entry, stacks, sizes))


def _entry_mistakes(entry: Mapping[str, object], stacks: Collection[str], sizes: object) -> Iterator[str]:
    shape = entry.get("shape")
    if not isinstance(shape, list | tuple) or len(shape) != 2:
        yield f".shape={shape}; right: [out_features, in_features]"
    else:
        yield from (f".shape{mistake}" for size in shape for mistake in _size_mistakes(size, sizes))
    if entry.get("clip", True) not in (True, False):
        yield f".clip={entry['clip']}; right: false, where no method may clip its weights"
    yield from (f".every{mistake}" for mistake in _size_mistakes(entry.get("every", 1), sizes))
    yield from _unread_mistakes(entry)
    yield from _name_mistakes(".stacks", entry.get("stacks", []), stacks)
    if not isinstance(entry.get("unpackable", []), list | tuple):
        yield f".unpackable={entry['unpackable']}; right: a list of methods"


def _unread_mistakes(entry: Mapping[str, object]) -> Iterator[str]:
    unread = entry.get("unread", 0)
    if type(unread) is not int or unread < 0:
        yield f".unread={unread}; right: how many of the last blocks nothing reads"


def _fold_mistakes(fold: object, layers: Collection[str], stacks: Collection[str]) -> Iterator[str]:
    yield from _field_mistakes(fold, FOLD, {"before", "into"})
    if isinstance(fold, Mapping):
        yield from _name_mistakes(".into", fold.get("into", []), layers)
        yield from _name_mistakes(".stacks", fold.get("stacks", []), stacks)
        piece = fold.get("piece", (0, 1))
        if not isinstance(piece, list | tuple) or len(piece) != 2:
            yield f".piece={piece}; right: [i, n], the i-th of n equal runs of outputs"


def _name_mistakes(field: str, names: object, known: Collection[str]) -> Iterator[str]:
    if not isinstance(names, list | tuple):
        yield f"{field}={names}; right: a list"
        return
    yield from (f"{field} names {name}, which is not there; right: {', '.join(map(str, known))}" for name in names
                if name not in known)  # fmt: skip


def _field_mistakes(entry: object, known: set[str], needed: set[str]) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        yield f"={entry}; right: {', '.join(sorted(known))}"
        return
    yield from (f".{key}: unknown; right: {', '.join(sorted(known))}" for key in entry if key not in known)
    yield from (f" lacks {key}" for key in sorted(needed - set(entry)))


def _size_mistakes(expression: object, sizes: object) -> Iterator[str]:
    """The mistakes of a `Size`: its factors are positive integers, or dotted fields of the config that are such."""
    for factor in factors(expression):
        value = factor if factor.isdigit() else field(factor, sizes)
        if isinstance(value, bool) or not str(value).isdigit() or int(str(value)) < 1:
            yield f"={expression}: {factor} is {value}; right: a positive integer, or a field of config that is one"


# ---- the parts


def read_part(
    name: str, place: Place, section: PartSection, sizes: Mapping[str, object], behind_pictures: Collection[str] = ()
) -> Part:
    """A part of a checked config.

    sizes: the `config` of the model, whose fields the sizes of layers name. behind_pictures: of its family.
    """
    stacks: list[Stack] = []
    for stack in place.stacks:
        stacks.append(_stack(stack, section["stacks"][stack], sum(s.n for s in stacks), sizes))
    layers = [(kind, layer, entry) for kind, entries in section["layers"].items() for layer, entry in entries.items()]
    linears, unread = list[Linear](), list[Linear]()
    for s in stacks:
        for i in range(s.n + s.unread):
            for entry, x in _block(s, i, layers, sizes):
                dead = i >= s.n or i >= s.n - entry.get("unread", 0)
                (unread if dead else linears).append(x)
    folds = tuple(f for s in section.get("folds") or () for f in _fitting(_fold(s), stacks, [*linears, *unread]))
    role = section.get("role") or place.role
    reads_text = place.last and not any(s.path in behind_pictures for s in stacks)
    return Part(name, place.stage, role, tuple(stacks), tuple(linears), folds, reads_text, tuple(unread))


def _stack(name: str, entry: StackSection, first: int, sizes: Mapping[str, object]) -> Stack:
    """A stack. Without `blocks` its path is one module, the only block."""
    if "blocks" not in entry:
        return Stack(name, entry["path"], first, 1, whole=True)
    unread = entry.get("unread", 0)
    return Stack(name, entry["path"], first, size(entry["blocks"], sizes) - unread, unread)


def _fold(section: FoldSection) -> Fold:
    first, n = section.get("piece", (0, 1))
    into, stacks = tuple(section["into"]), tuple(section.get("stacks", ()))
    return Fold(section["before"], into, (first, n), section.get("output_of"), stacks)


def _fitting(fold: Fold, stacks: Iterable[Stack], linears: Iterable[Linear]) -> Iterator[Fold]:
    """The fold with the stacks where one scale fits both sides; none where it fits in no stack.

    Under grouped-query attention `v_proj` writes fewer channels than `o_proj` reads, so it cannot absorb a scale of them.
    """
    layers = {(x.stack, x.name): x for x in linears}
    own = [s.name for s in stacks if not fold.stacks or s.name in fold.stacks]
    fit = tuple(name for name in own if _one_scale(fold, name, layers))
    if fit:
        yield fold if len(fit) == len(own) else replace(fold, stacks=fit)


def _one_scale(fold: Fold, stack: str, layers: Mapping[tuple[str, str], Linear]) -> bool:
    """Whether each layer that the fold scales reads as many channels as its linear layer before writes."""
    before = layers.get((stack, fold.before))
    into = [layers[stack, name] for name in fold.into if (stack, name) in layers]
    return before is None or all(x.in_features * fold.piece[1] == before.out_features for x in into)


def _block(
    stack: Stack, i: int, layers: Sequence[tuple[str, str, LayerSection]], sizes: Mapping[str, object]
) -> Iterable[tuple[LayerSection, Linear]]:
    """The linear layers of block `i` of a stack, with their sections.

    layers: (kind, name inside the block, section).
    """
    for kind, name, entry in layers:
        if stack.name not in entry.get("stacks", [stack.name]) or i % size(entry.get("every", 1), sizes):
            continue
        rows, columns = (size(x, sizes) for x in entry["shape"])
        yield (
            entry,
            Linear(
                path=f"{stack.block_path(stack.first + i)}.{name}",
                name=name,
                kind=kind,
                stack=stack.name,
                block=stack.first + i,
                out_features=rows,
                in_features=columns,
                bias=entry.get("bias", True),
                clip=entry.get("clip", True),
                unpackable=tuple(entry.get("unpackable", ())),
            ),
        )
