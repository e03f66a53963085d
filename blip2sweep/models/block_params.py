"""How many parameters each block of a checkpoint has, norms included. No torch here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.checkpoints.headers import Tensor
from blip2sweep.models.part import Linear, Part, Stack

STAYS = "relative_attention_bias"  # T5's, in the first block for all; the next one takes it over
NUMBERED = re.compile(r"(?<=\.)\d+(?=\.)")

BlockParams = Mapping[str, Mapping[int, int]]  # {part: {number of a block: its parameters}}


def block_params(
    tensors: Mapping[str, Tensor], anatomy: Anatomy, tied: Sequence[Sequence[str]] = ()
) -> dict[str, dict[int, int]]:
    """{part: {number of a block: its parameters}}, blocks that nothing reads included.

    tensors: of the files, by name. tied: groups of names that are one tensor, which counts once. Files may name a list of
    blocks otherwise than the model does (transformers renames while it loads). Then it is the list whose tensors have the
    names and shapes of the stack's layers, the one with the most alike path. Where there is none, a block counts the weights
    and biases of its linear layers alone.
    """
    again = {name for group in tied for name in [n for n in group if n in tensors][1:]}
    sizes = {n: math.prod(t.shape) for n, t in tensors.items()
             if t.dtype.startswith(("F", "BF")) and n not in again and f".{STAYS}." not in n}  # fmt: skip
    blocks = _lists(sizes)
    return {p.name: dict(_of_part(p, blocks)) for p in anatomy.parts.values()}


def names_in_files(tensors: Mapping[str, Tensor], anatomy: Anatomy) -> dict[str, str]:
    """{name of a module in the files: its path in the model} of the linear layers of parts. tensors: as for
    `block_params`."""
    blocks, found = _lists({n: math.prod(t.shape) for n, t in tensors.items()}), dict[str, str]()
    for part in anatomy.parts.values():
        for stack in part.stacks:
            layers = [x for x in (*part.linears, *part.unread) if x.stack == stack.name]
            path = stack.path if stack.whole else _list_of(stack, layers, blocks) or stack.path
            found |= {x.path.replace(stack.path, path, 1): x.path for x in layers}
    return found


Blocks = Mapping[str, Mapping[int, Mapping[str, int]]]  # {path of a list: {number: {name inside the block: numbers}}}


def _lists(sizes: Mapping[str, int]) -> Blocks:
    blocks: dict[str, dict[int, dict[str, int]]] = {}
    for name, size in sizes.items():
        for found in NUMBERED.finditer(name):
            own = blocks.setdefault(name[: found.start() - 1], {}).setdefault(int(found[0]), {})
            own[name[found.end() + 1 :]] = size
    return blocks


def _of_part(part: Part, blocks: Blocks) -> Iterator[tuple[int, int]]:
    for stack in (s for s in part.stacks if not s.whole):
        layers = [x for x in (*part.linears, *part.unread) if x.stack == stack.name]
        there = blocks.get(_list_of(stack, layers, blocks), {})
        for i in range(stack.n + stack.unread):
            number = stack.first + i
            linear = sum(x.weights + x.out_features * x.bias for x in layers if x.block == number)
            yield number, sum(there[i].values()) if i in there else linear


def _list_of(stack: Stack, layers: Sequence[Linear], blocks: Blocks) -> str:
    """The path of a stack in the files; empty where there is none."""
    if stack.path in blocks:
        return stack.path
    alike = [path for path, own in blocks.items() if all(_holds(own, x, stack) for x in layers)]
    return max(alike, key=lambda path: _alike(path, stack.path), default="")


def _holds(own: Mapping[int, Mapping[str, int]], x: Linear, stack: Stack) -> bool:
    return own.get(x.block - stack.first, {}).get(f"{x.name}.weight") == x.weights


def _alike(path: str, other: str) -> tuple[int, int]:
    """How many words two paths end with in common, and how many they share."""
    own, its = path.split("."), other.split(".")
    ends = next((i for i, (a, b) in enumerate(zip(reversed(own), reversed(its), strict=False)) if a != b), len(own))
    return ends, len({*own} & {*its})
