"""The short form of a recipe: a list of targets with their schemes. `expand` makes the recipe of it again.

Ledger rows, recipe files and the table's columns `recipe`, `blocks` and `layers` have this form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations, groupby

from blip2sweep.compression.drop_blocks import check_left, dropped_sites
from blip2sweep.compression.step import DROP, QUANTIZE, Entries, Pair, Site, Spec, Step, sites, sites_of, step
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.part import KINDS, THIRDS, Linear, Part
from blip2sweep.recipe.recipe import PartRecipe, Recipe

LAYER_WORDS = ("all", *KINDS, *("+".join(pair) for pair in combinations(KINDS, 2)))
BLOCK_WORDS = ("all", *THIRDS, *("+".join(pair) for pair in combinations(THIRDS, 2)))


def targets(recipe: Recipe) -> list[dict[str, object]]:
    """[{target, method, bits, …}], one entry for each (part, scheme, blocks × layers)."""
    parts = [p for p in recipe.parts.values() if p.steps]
    return [entry for i in range(len(recipe.kinds)) for part in parts for entry in part_targets(part, i)]


@lru_cache(maxsize=65536)
def part_targets(recipe: PartRecipe, i: int) -> list[dict[str, object]]:
    """The entries of one part in the i-th step. They are memoised, so nobody may change them."""
    kind, by_spec = recipe.steps[i].kind, dict[Spec, list[Site]]()
    for site, spec in recipe.steps[i].pairs:
        by_spec.setdefault(spec, []).append(site)
    named = {} if kind == QUANTIZE else {"step": kind}
    return [
        {**named, "target": f"{recipe.part.name}:{blocks}:{layers}", **step(kind).to_entry(spec)}
        for spec, there in by_spec.items()
        for blocks, layers in _described(recipe, kind, there)
    ]


def _described(recipe: PartRecipe, kind: str, there: Sequence[Site]) -> list[tuple[str, str]]:
    """[(blocks, layers)] of what one spec changes. Dropped blocks are always told by their numbers."""
    if kind == DROP:
        return [(number_word({site.block for site in there}), "all")]
    layers = [x for x in there if isinstance(x, Linear)]
    if layers:
        return describe(recipe.left, layers)
    return [(block_word(recipe.left, {x.block for site in there for x in recipe.layers_in(kind, site)}), "all")]


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
    """Whole kinds first, then for each further name the shortest suffix that matches no unwanted name."""
    kinds = [k for k in KINDS if (inside := {n for n, kind in present.items() if kind == k}) and inside <= names]
    rest = [n for n in present if n in names and present[n] not in kinds]
    return "+".join(dict.fromkeys([*kinds, *(_suffix(n, present, names) for n in rest)]))


def _suffix(name: str, present: Iterable[str], names: set[str]) -> str:
    pieces = name.split(".")
    for i in range(len(pieces) - 1, 0, -1):
        suffix = ".".join(pieces[i:])
        if all(n in names for n in present if n.endswith("." + suffix)):
            return suffix
    return name


def block_word(part: Part, blocks: set[int], layers: str = "all") -> str:
    """`all`, a third, two thirds, or indices and ranges joined with `+`. Blocks without such layers do not count."""
    names = part.layers(layers)
    having = {x.block for x in part.linears if x.name in names}
    for word in BLOCK_WORDS if part.n_blocks > 1 else ("all",):
        if part.blocks(word) & having == blocks:
            return word
    return number_word(blocks)


def number_word(blocks: Iterable[int]) -> str:
    """Numbers as indices and ranges joined with `+`."""
    return "+".join(f"{lo}-{hi}" if hi > lo else str(lo) for lo, hi in _runs(sorted(blocks)))


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], n)
        else:
            runs.append((n, n))
    return runs


def expand(entries: Iterable[Mapping[str, object]], anatomy: Anatomy) -> Recipe:
    """The recipe of a list of targets: the inverse of `targets`."""
    left, steps = anatomy, list[dict[str, Entries]]()
    for kind, own in groupby(entries, kind_of):
        steps.append(expanded(kind, list(own), left))
        left = left_by(left, steps[-1]) if kind == DROP else left
    return Recipe({n: PartRecipe(p, tuple(s[n] for s in steps)) for n, p in anatomy.parts.items()})


def left_by(anatomy: Anatomy, dropped: Mapping[str, Entries]) -> Anatomy:
    """The anatomy that the steps after `drop_blocks` see."""
    return anatomy.without({n: frozenset(site.block for site, _ in e.pairs) for n, e in dropped.items()})


def kind_of(entry: Mapping[str, object]) -> str:
    """The kind of step that an entry of the short form belongs to."""
    return str(entry.get("step", QUANTIZE))


def expanded(kind: str, entries: Sequence[Mapping[str, object]], anatomy: Anatomy) -> dict[str, Entries]:
    """{part: entries} of one step. Of two targets that name one site the last wins.

    An entry may say `where` it was read. Raises UserError, one line, for an entry that means nothing.
    """
    module, found = step(kind, "recipe"), {n: dict[str, Pair]() for n in anatomy.parts}
    for entry in entries:
        where = str(entry.get("where", "recipe"))
        spec = _spec(module, entry, where)
        for part, there in _sites(kind, entry["target"], anatomy, module.LEVEL, where).items():
            found[part].update((site.path, (site, spec)) for site in there)
    if kind == DROP:
        where = str(entries[-1].get("where", "recipe"))
        check_left(anatomy, {n: {site.block for site, _ in own.values()} for n, own in found.items()}, where)
    return {n: Entries(kind, _in_order(anatomy.parts[n], own, module.LEVEL)) for n, own in found.items()}


def _spec(module: Step, entry: Mapping[str, object], where: str) -> Spec:
    try:
        return module.from_entry({k: v for k, v in entry.items() if k not in ("where", "target", "step")})
    except UserError as error:
        raise UserError(f"{where}: {error}" if "where" in entry else str(error)) from error


def _sites(kind: str, target: object, anatomy: Anatomy, level: str, where: str) -> Mapping[str, Sequence[Site]]:
    return dropped_sites(target, anatomy, where) if kind == DROP else sites_of(target, anatomy, level, where)


def _in_order(part: Part, found: Mapping[str, Pair], level: str) -> tuple[Pair, ...]:
    if level == "block":
        return tuple(sorted(found.values(), key=lambda pair: pair[0].block))
    every = sites(part, [True] * len(part.linears), level) if found else ()
    return tuple(found[site.path] for site in every if site.path in found)


def text(entries: Sequence[Mapping[str, object]]) -> str:
    """A recipe in one line for people: `language:4-5=dropped; vision:all:all=rtn4/channel; language:0-3:mlp=rtn8/group32`."""
    return "; ".join(f"{_place(e)}={step(kind_of(e)).text(e)}" for e in entries) or "none"


def _place(entry: Mapping[str, object]) -> str:
    """The target of an entry. Blocks are dropped whole, so their layers need no word."""
    return str(entry["target"]).removesuffix(":all") if kind_of(entry) == DROP else str(entry["target"])
