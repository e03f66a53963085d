"""What a model config says of its parts, held against the form it is to have before anything is made of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from blip2sweep.errors import UserError

STACK, LAYER = {"path", "blocks"}, {"shape", "bias", "every", "stacks", "clip", "unpackable"}
FOLD = {"before", "into", "piece", "output_of", "stacks"}
KINDS = ("attention", "crossattention", "mlp")
ROLES = VISION, CONNECTOR, LANGUAGE = ("vision", "connector", "language")
NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)


def check_parts(model: Mapping[str, Any]) -> None:
    """Raise UserError, one line with all mistakes, where `parts` of a model config cannot be read."""
    parts = model.get("parts")
    if not isinstance(parts, Mapping) or not parts:
        raise UserError(
            f"model {model.get('name')}: parts={parts}; right: parts as conf/model/_vit_qformer.yaml has them"
        )
    wrong = [f"parts.{name}{what}" for name, part in parts.items() for what in _part(part, model.get("config") or {})]
    if wrong:
        raise UserError(f"model {model.get('name')}: {'; '.join(wrong)}")


def _part(part: Any, sizes: Mapping[str, Any]) -> Iterator[str]:
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
        yield from (f".stacks.{name}{what}" for what in _fields(stack, STACK, {"path", "blocks"}))
        if not NAME.fullmatch(str(name)):
            yield f".stacks.{name}: no name for a stack; right: letters, digits and _"
        if isinstance(stack, Mapping) and "blocks" in stack:
            yield from (f".stacks.{name}.blocks{what}" for what in _size(stack["blocks"], sizes))
    yield from _layers(layers, stacks, sizes)
    names = {layer for entries in layers.values() if isinstance(entries, Mapping) for layer in entries}
    for i, fold in enumerate(part.get("folds") or ()):
        yield from (f".folds[{i}]{what}" for what in _fold(fold, names, stacks))


def _layers(layers: Mapping[str, Any], stacks: Mapping[str, Any], sizes: Mapping[str, Any]) -> Iterator[str]:
    for kind, entries in layers.items():
        if kind not in KINDS or not isinstance(entries, Mapping):
            yield f".layers.{kind}; right: {', '.join(KINDS)}, each with layers by name"
            continue
        for name, entry in entries.items():
            where = f".layers.{kind}.{name}"
            yield from (where + what for what in _fields(entry, LAYER, {"shape"}))
            if isinstance(entry, Mapping):
                yield from (where + what for what in _entry(entry, stacks, sizes))


def _entry(entry: Mapping[str, Any], stacks: Mapping[str, Any], sizes: Mapping[str, Any]) -> Iterator[str]:
    shape = entry.get("shape")
    if not isinstance(shape, list | tuple) or len(shape) != 2:
        yield f".shape={shape}; right: [out_features, in_features]"
    else:
        yield from (f".shape{what}" for size in shape for what in _size(size, sizes))
    if entry.get("clip", True) not in (True, False):
        yield f".clip={entry['clip']}; right: false, where no method may clip its weights"
    yield from (f".every{what}" for what in _size(entry.get("every", 1), sizes))
    yield from _known(".stacks", entry.get("stacks", []), stacks)
    if not isinstance(entry.get("unpackable", []), list | tuple):
        yield f".unpackable={entry['unpackable']}; right: a list of methods"


def _fold(fold: Any, layers: set[str], stacks: Mapping[str, Any]) -> Iterator[str]:
    yield from _fields(fold, FOLD, {"before", "into"})
    if isinstance(fold, Mapping):
        yield from _known(".into", fold.get("into", []), layers)
        yield from _known(".stacks", fold.get("stacks", []), stacks)


def _known(what: str, names: Any, among: Any) -> Iterator[str]:
    if not isinstance(names, list | tuple):
        yield f"{what}={names}; right: a list"
        return
    yield from (f"{what} names {name}, which is not there; right: {', '.join(map(str, among))}" for name in names
                if name not in among)  # fmt: skip


def _fields(entry: Any, known: set[str], needed: set[str]) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        yield f"={entry}; right: {', '.join(sorted(known))}"
        return
    yield from (f".{key}: unknown; right: {', '.join(sorted(known))}" for key in entry if key not in known)
    yield from (f" lacks {key}" for key in sorted(needed - set(entry)))


def _size(expression: Any, sizes: Mapping[str, Any]) -> Iterator[str]:
    """A product of positive integers and dotted fields of the config that are such."""
    for word in (w.strip() for w in str(expression).split("*")):
        value = word if word.isdigit() else _field(word, sizes)
        if isinstance(value, bool) or not str(value).isdigit() or int(value) < 1:
            yield f"={expression}: {word} is {value}; right: a positive integer, or a field of config that is one"


def _field(dotted: str, sizes: Any) -> Any:
    for key in dotted.split("."):
        sizes = sizes.get(key) if isinstance(sizes, Mapping) else None
    return sizes
