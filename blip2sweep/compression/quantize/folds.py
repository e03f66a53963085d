"""Which folds of the anatomy a method can use in a recipe, and which of them decide its weights.

Planning reads this too, so torch is not imported.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.quantize.scheme import Scheme, Traits
from blip2sweep.compression.step import SpecFields
from blip2sweep.models.part import Fold, Linear, Part

Layers = Sequence[tuple[Linear, Scheme]]
Read = list[str | list[str] | None]  # before, output_of, into


def folds_of(
    part: Part, block: int, schemes: Mapping[str, Scheme], own: Collection[str]
) -> list[tuple[Fold, list[str]]]:
    """The folds of a block that the recipe allows, each with the paths of its layers among `own`.

    own: paths of the layers whose methods fold. schemes: of all touched layers of the block.
    """
    inside = {x.name: x for x in part.linears if x.block == block}
    stack = next(x.stack for x in inside.values())
    found = []
    for fold in (f for f in part.folds if not f.stacks or stack in f.stacks):
        paths = [inside[n].path for n in fold.into if n in inside and inside[n].path in own]
        if paths and _legal(fold, inside, schemes):
            found.append((fold, paths))
    return found


def _legal(fold: Fold, inside: Mapping[str, Linear], schemes: Mapping[str, Scheme]) -> bool:
    """Whether a scale may be folded into what stands before.

    Its quantization must commute with a scaling of its rows. One scale for the whole tensor does not, nor does an
    absolute threshold. Every layer that reads these rows must be folded as well, or left alone, because its columns are
    scaled too.
    """
    touched = {name: schemes[x.path] for name, x in inside.items() if x.path in schemes}
    before = touched.get(fold.before)
    if before is not None and (before.weights.strategy == "tensor" or not METHODS[before.weights.method].by_rows):
        return False
    return len({touched[n].weights.method if folds(touched[n]) else None for n in fold.into if n in touched}) == 1


def folds(scheme: Scheme) -> bool:
    """Whether the method has a scale that the module before the layer is to absorb."""
    return METHODS[scheme.weights.method].folds


def folds_read(part: Part, layers: Layers) -> dict[str, list[Read]]:
    """{path of a stack: folds} that the methods read of the anatomy for these layers; empty where they read none.

    There is one entry for each stack, not for each block. So cells that touch more or fewer blocks share the blocks
    that they quantize alike. Of the modules before, only a linear layer counts, because its scheme may forbid the fold.
    A norm never does.
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
    """Folds in one order, whatever the config's.

    Where two fold one layer the config's order stays, because the last wins.
    """
    into = [name for fold in read for name in fold[-1] or ()]
    return read if len(into) > len(set(into)) else sorted(read, key=repr)


# ---- what a layer gets, said once


def canonical_schemes(part: Part, layers: Layers) -> dict[str, SpecFields]:
    """{module path: scheme} as identities and stores have it.

    Options that decide nothing have one value. So two recipes that make the same weights have one identity.
    """
    folded = _folded(part, layers)
    return {x.path: _canonical(s, traits(x), x.path in folded).as_dict() for x, s in layers}


@lru_cache(maxsize=65536)
def _canonical(scheme: Scheme, layer: Traits, folded: bool) -> Scheme:
    return replace(scheme, weights=scheme.weights.canonical(layer, folded))


def traits(x: Linear) -> Traits:
    return Traits(x.in_features, x.bias, x.leaf, x.clip)


def _folded(part: Part, layers: Layers) -> set[str]:
    """The paths of the layers whose scale a module before them can absorb."""
    by_block: dict[int, dict[str, Scheme]] = {}
    for x, scheme in layers:
        by_block.setdefault(x.block, {})[x.path] = scheme
    found: set[str] = set()
    for block, schemes in by_block.items():
        own = {path for path, s in schemes.items() if folds(s)}
        if own:
            found.update(path for _, paths in folds_of(part, block, schemes, own) for path in paths)
    return found
