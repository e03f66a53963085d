"""Which folds of the anatomy a method can use in a recipe, and what of them decides its weights. No torch: planning asks too."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.quantize.scheme import Scheme, Traits
from blip2sweep.compression.step import Words
from blip2sweep.models.part import Fold, Linear, Part

Layers = Sequence[tuple[Linear, Scheme]]
Read = list[str | list[str] | None]  # before, output_of, into


def folds_of(
    part: Part, block: int, schemes: Mapping[str, Scheme], own: Collection[str]
) -> list[tuple[Fold, list[str]]]:
    """The legal folds of a block that have layers among `own`, of methods that fold, with their paths. schemes: of all its
    touched layers."""
    inside = {x.name: x for x in part.linears if x.block == block}
    stack = next(x.stack for x in inside.values())
    found = []
    for fold in (f for f in part.folds if not f.stacks or stack in f.stacks):
        paths = [inside[n].path for n in fold.into if n in inside and inside[n].path in own]
        if paths and _legal(fold, inside, schemes):
            found.append((fold, paths))
    return found


def _legal(fold: Fold, inside: Mapping[str, Linear], schemes: Mapping[str, Scheme]) -> bool:
    """Scaling the rows of what stands before must commute with its quantization, which one scale for the whole tensor or an
    absolute threshold prevents; and whatever reads them must be folded as well or left alone: its columns are scaled as well."""
    touched = {name: schemes[x.path] for name, x in inside.items() if x.path in schemes}
    before = touched.get(fold.before)
    if before is not None and (before.weights.strategy == "tensor" or not METHODS[before.weights.method].by_rows):
        return False
    return len({touched[n].weights.method if folds(touched[n]) else None for n in fold.into if n in touched}) == 1


def folds(scheme: Scheme) -> bool:
    """Whether the method has a scale that what stands before the layer is to absorb."""
    return METHODS[scheme.weights.method].folds


def folds_read(part: Part, layers: Layers) -> dict[str, list[Read]]:
    """What of the anatomy's folds the methods read for these layers, {path of a stack: folds}; empty where they read none.

    One entry a stack, not a block, so that cells that touch more or fewer blocks still share the blocks they quantize
    alike. Of what stands before only a layer counts, whose scheme may forbid the fold: a norm never does.
    """
    by_stack: dict[str, set[str]] = {}
    for x, scheme in layers:
        if folds(scheme):
            by_stack.setdefault(x.stack, set()).add(x.name)
    paths = {s.name: s.path for s in part.stacks}
    found = {paths[stack]: _ordered(list(_meeting(part, stack, names))) for stack, names in by_stack.items()}
    return {path: read for path, read in found.items() if read}


def _meeting(part: Part, stack: str, names: set[str]) -> Iterator[Read]:
    layers = {x.name for x in part.linears if x.stack == stack}
    for fold in part.folds:
        if (not fold.stacks or stack in fold.stacks) and not names.isdisjoint(fold.into):
            yield [
                fold.before if fold.before in layers else None,
                fold.output_of,
                [n for n in fold.into if n in layers],
            ]


def _ordered(read: list[Read]) -> list[Read]:
    """As they stand where two fold one layer, of which the last wins; else in one order, whatever the config's."""
    into = [name for fold in read for name in fold[-1] or ()]
    return read if len(into) > len(set(into)) else sorted(read, key=repr)


# ---- what a layer gets, said once


def said_once(part: Part, layers: Layers) -> dict[str, Words]:
    """{module path: scheme} as identities and stores have it: knobs that decide nothing have one value, so that two recipes
    which make the same weights are one."""
    folded = _folded(part, layers)
    return {x.path: _once(s, traits(x), x.path in folded).as_dict() for x, s in layers}


@lru_cache(maxsize=65536)
def _once(scheme: Scheme, layer: Traits, folded: bool) -> Scheme:
    return replace(scheme, weights=scheme.weights.said_once(layer, folded))


def traits(x: Linear) -> Traits:
    return Traits(x.in_features, x.bias, x.leaf, x.clip)


def _folded(part: Part, layers: Layers) -> set[str]:
    """Paths of the layers whose scale something before them can absorb."""
    by_block: dict[int, dict[str, Scheme]] = {}
    for x, scheme in layers:
        by_block.setdefault(x.block, {})[x.path] = scheme
    found: set[str] = set()
    for block, schemes in by_block.items():
        own = {path for path, s in schemes.items() if folds(s)}
        if own:
            found.update(path for _, paths in folds_of(part, block, schemes, own) for path in paths)
    return found
