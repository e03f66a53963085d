"""The short form of a recipe: a list of targets with their schemes that resolves to the same map.

Ledger rows, recipe files and the table's `recipe`, `blocks` and `layers` columns are made of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import KINDS, THIRDS, Anatomy, Linear, Part
from blip2sweep.recipe.recipe import PartRecipe, Recipe

LAYER_WORDS = ("all", *KINDS, *("+".join(pair) for pair in combinations(KINDS, 2)))
BLOCK_WORDS = ("all", *THIRDS, *("+".join(pair) for pair in combinations(THIRDS, 2)))


def targets(recipe: Recipe) -> list[dict[str, Any]]:
    """[{target, method, bits, …}], one entry for each (part, scheme, blocks × layers)."""
    return [entry for part in recipe.parts.values() for entry in part_targets(part)]


@lru_cache(maxsize=65536)
def part_targets(recipe: PartRecipe) -> list[dict[str, Any]]:
    """Entries of one part; memoised, so not to be changed in place."""
    by_scheme: dict[Scheme, list[Linear]] = {}
    for layer, scheme in recipe.touched():
        by_scheme.setdefault(scheme, []).append(layer)
    return [
        {"target": f"{recipe.part.name}:{blocks}:{layers}", **knobs(scheme)}
        for scheme, touched in by_scheme.items()
        for blocks, layers in describe(recipe.part, touched)
    ]


def knobs(scheme: Scheme) -> dict[str, Any]:
    """A scheme in the words of the config (`bits` for num_bits, `input` for its activations; the types left out)."""
    weights, *inputs = ({k: v for k, v in part.items() if k != "type"} for part in scheme.as_dict().values())
    entry = {"method": weights.pop("method"), "bits": weights.pop("num_bits"), **weights}
    return {**entry, "input": {"bits": inputs[0].pop("num_bits"), **inputs[0]}} if inputs else entry


def describe(part: Part, touched: Sequence[Linear]) -> list[tuple[str, str]]:
    """[(blocks, layers)] that together select exactly these layers; one pair where that is possible."""
    blocks = {x.block for x in touched}
    word = _layer_word(part, touched, blocks)
    if word is not None:
        return [(block_word(part, blocks, word), word)]
    by_names: dict[tuple[str, ...], list[Linear]] = {}
    for block in sorted(blocks):
        inside = [x for x in touched if x.block == block]
        by_names.setdefault(tuple(x.name for x in inside), []).extend(inside)
    return [_pair(part, group) for group in by_names.values()]


def _pair(part: Part, group: Sequence[Linear]) -> tuple[str, str]:
    word = _exact_word(part, group)
    return block_word(part, {x.block for x in group}, word), word


def _exact_word(part: Part, group: Sequence[Linear]) -> str:
    return _layer_word(part, group, {x.block for x in group}) or "+".join(dict.fromkeys(x.name for x in group))


def _layer_word(part: Part, touched: Sequence[Linear], blocks: set[int]) -> str | None:
    """The shortest layer word that selects exactly `touched` within `blocks`, or None."""
    wanted = {x.path for x in touched}
    present = {x.name: x.kind for x in part.linears if x.block in blocks}
    for word in (*LAYER_WORDS, _leaf_words(present, {x.name for x in touched})):
        names = part.layers(word)
        if {x.path for x in part.linears if x.block in blocks and x.name in names} == wanted:
            return word
    return None


def _leaf_words(present: Mapping[str, str], names: set[str]) -> str:
    """Whole kinds first, then the shortest suffix of each further name that matches no unwanted one."""
    kinds = [k for k in KINDS if (inside := {n for n, kind in present.items() if kind == k}) and inside <= names]
    rest = [n for n in present if n in names and present[n] not in kinds]
    return "+".join(dict.fromkeys([*kinds, *(_suffix(n, present, names) for n in rest)]))


def _suffix(name: str, present: Iterable[str], names: set[str]) -> str:
    words = name.split(".")
    for i in range(len(words) - 1, 0, -1):
        suffix = ".".join(words[i:])
        if all(n in names for n in present if n.endswith("." + suffix)):
            return suffix
    return name


def block_word(part: Part, blocks: set[int], layers: str = "all") -> str:
    """`all`, a third, two thirds, or indices and ranges joined with `+`; blocks without such layers do not count."""
    names = part.layers(layers)
    having = {x.block for x in part.linears if x.name in names}
    for word in BLOCK_WORDS if part.n_blocks > 1 else ():
        if part.blocks(word) & having == blocks:
            return word
    return "+".join(f"{lo}-{hi}" if hi > lo else str(lo) for lo, hi in _runs(sorted(blocks)))


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], n)
        else:
            runs.append((n, n))
    return runs


def expand(entries: Iterable[Mapping[str, Any]], anatomy: Anatomy) -> Recipe:
    """The recipe a list of targets stands for: the inverse of `targets`."""
    schemes: dict[str, list[Scheme | None]] = {n: [None] * len(p.linears) for n, p in anatomy.parts.items()}
    for entry in entries:
        part, blocks, layers = str(entry["target"]).split(":")
        scheme = scheme_of({k: v for k, v in entry.items() if k != "target"})
        for i, hit in enumerate(anatomy.mask(part, blocks, layers)):
            if hit:
                schemes[part.partition(".")[0]][i] = scheme
    return Recipe({n: PartRecipe(anatomy.parts[n], tuple(s)) for n, s in schemes.items()})


def scheme_of(entry: Mapping[str, Any]) -> Scheme:
    """The inverse of `knobs`."""
    weights, inputs = dict(entry), entry.get("input")
    weights.pop("input", None)
    try:
        numbered = {"num_bits" if k == "bits" else k: v for k, v in weights.items()}
        activations = {"num_bits" if k == "bits" else k: v for k, v in inputs.items()} if inputs else None
        typed = {"type": METHODS[entry["method"]].type, **numbered}
        return Scheme.from_dict({"weights": typed, "input_activations": activations})
    except (TypeError, KeyError) as error:
        raise UserError(f"recipe entry {dict(entry)}: {error}") from error


def text(entries: Sequence[Mapping[str, Any]]) -> str:
    """One line for people: `vision:all:all=rtn4/channel; language:0-3:mlp=rtn8/group32`."""
    return "; ".join(f"{e['target']}={scheme_text(e)}" for e in entries) or "none"


def scheme_text(entry: Mapping[str, Any]) -> str:
    """`rtn4/group32/sym`, from an entry of the short form; knobs where they are not the method's defaults."""
    only_width = len(METHODS[entry["method"]].bits) == 1
    words = [
        f"{entry['method']}{'' if only_width else entry['bits']}",
        f"{entry.get('strategy', '')}{entry.get('group_size') or ''}",
    ]
    words += ["sym"] if entry.get("symmetric") else []
    words += [f"{k}={entry[k]}" for k, v in _further(entry["method"]) if k in entry and entry[k] != v]
    if entry.get("input"):
        inputs = entry["input"]
        words.append(
            f"a{inputs['bits']}{'' if inputs['symmetric'] else ' asym'}{'' if inputs['dynamic'] else ' static'}"
        )
    return "/".join([*words, *(["packed"] if entry.get("packed") else [])])


def _further(method: str) -> Iterable[tuple[str, Any]]:
    return ((k, v) for k, v in METHODS[method].knobs.items() if k not in ("group_size", "symmetric"))
