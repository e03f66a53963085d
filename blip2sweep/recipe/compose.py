"""Config -> recipe. Each step is resolved by its own module: blocks are dropped first, so all others see what is left."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from blip2sweep.canonical import canonical_json
from blip2sweep.compression.quantize.resolve import resolve_again
from blip2sweep.compression.recipe_file import Listed, read
from blip2sweep.compression.step import DROP, QUANTIZE, RECOVER, SPARSITY, STEPS, Entries, step
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.recipe.compact import expanded, left_by
from blip2sweep.recipe.recipe import PartRecipe, Recipe
from blip2sweep.recipe.recovered import Made, asked, settled

ORDERS = ("before", "after")  # of a step from outside, relative to quantization
# What the config says of the built-in kinds; they have no options under `steps`.
KEYS = {
    DROP: "drop_blocks=part:blocks",
    SPARSITY: "sparsity=magnitude and sparsity.<option>",
    QUANTIZE: "those of quant, per_part and rules",
    RECOVER: "recover=lora and recover.<option>",
}


class _Made(NamedTuple):
    kind: str
    after: bool
    entries: dict[str, Entries]


def resolve_recipe(config: Mapping[str, object], anatomy: Anatomy, runs: bool = True) -> Recipe:
    """The recipe of one cell. runs: it is computed here, so libraries must be installed.

    Raises UserError, one line, when any part of the config would be ignored.
    """
    dropped = _built_in(DROP, config, anatomy, runs)
    left = left_by(anatomy, dropped)
    sparse, quantized, trained = (_built_in(kind, config, left, runs) for kind in (SPARSITY, QUANTIZE, RECOVER))
    others = list(_others(config.get("steps"), left, runs))
    before, after = ([m.entries for m in others if m.after == late] for late in (False, True))
    compressed = [made for made in (sparse, *before, quantized) if made]
    recovered, again = _recovery(config, trained, compressed, left, runs)
    every = [dropped, sparse, *before, quantized, recovered, again, *after]
    ordered = [entries for entries in every if entries]
    parts = {n: _part(anatomy, n, tuple(entries[n] for entries in ordered)) for n in anatomy.parts}
    return Recipe(parts, frozenset({"recipe_file" if config.get("recipe_file") else "part"}))


def _recovery(
    config: Mapping[str, object], trained: Made, compressed: Sequence[Made], anatomy: Anatomy, runs: bool
) -> tuple[Made, Made]:
    """Recovery with `merged`, and the second quantization. compressed: the steps before it."""
    path = str(config.get("recipe_file") or "")
    if not (path and any(e.again for e in read(path))):
        return settled(anatomy.parts, trained, compressed, *asked(config.get(RECOVER)))
    found = settled(anatomy.parts, trained, compressed, None, True)
    _check_again(found[1], path, anatomy, runs)
    return found


def _check_again(again: Made, path: str, anatomy: Anatomy, runs: bool) -> None:
    """Raise UserError where a recipe file says of the second quantization what is not so."""
    said = resolve_again(path, anatomy, runs)
    if any(dict(said[n].pairs) != dict(again[n].pairs) for n in anatomy.parts):
        raise UserError(
            f"recipe_file={path}: quantizes otherwise after step {RECOVER} than before; right: the same entries, of all "
            f"layers that are trained and quantized"
        )


@lru_cache(maxsize=65536)
def _part(anatomy: Anatomy, name: str, steps: tuple[Entries, ...]) -> PartRecipe:
    return PartRecipe(anatomy.parts[name], steps)


def _built_in(kind: str, config: Mapping[str, object], anatomy: Anatomy, runs: bool) -> dict[str, Entries]:
    """{part: entries} of a built-in step, of every part; empty where the config asks for nothing of it."""
    path = config.get("recipe_file")
    listed = [e for e in read(str(path)) if e.kind == kind] if path and kind != QUANTIZE else []
    if listed:
        _refuse_twice(kind, config, str(path))
        return _of_file(listed, anatomy)
    found = step(kind).resolve(config, anatomy, "quant" if kind == QUANTIZE else kind, runs)
    return {n: found.get(n) or _nothing(kind) for n in anatomy.parts} if found else {}


def _of_file(listed: Sequence[Listed], anatomy: Anatomy) -> dict[str, Entries]:
    """{part: entries} of what a recipe file says of a further step."""
    kind = listed[0].kind
    text = canonical_json([{"where": e.where, "step": kind, "target": e.target, **e.options} for e in listed])
    return _listed(kind, text, anatomy)


@lru_cache(maxsize=4096)
def _listed(kind: str, text: str, anatomy: Anatomy) -> dict[str, Entries]:
    """text: the entries as JSON. Memoised, so that cells share their parts."""
    made = expanded(kind, json.loads(text), anatomy)
    return {n: Entries(kind, e.pairs, frozenset({"recipe_file"})) for n, e in made.items()}


def _refuse_twice(kind: str, config: Mapping[str, object], path: str) -> None:
    """Raise UserError where the config asks for a step that the recipe file has too."""
    section = config.get(kind)
    method = section.get("method") if isinstance(section, Mapping) else section
    if method not in (None, "none"):
        raise UserError(f"{kind}={method}: recipe_file={path} has this step too; right: one of the two")


@lru_cache
def _nothing(kind: str) -> Entries:
    return Entries(kind)


def _others(options: object, anatomy: Anatomy, runs: bool) -> Iterator[_Made]:
    """The further steps, in the order of STEPS; those from outside by name. options: {kind: its options and `order`}."""
    given = options if isinstance(options, Mapping) else {}
    for kind in given:
        if kind in KEYS:
            raise UserError(f"steps.{kind}: a built-in step has no options here; right: {KEYS[kind]}")
        step(kind, "steps")
    for kind in (k for k in (*STEPS, *sorted(given.keys() - STEPS)) if given.get(k) is not None):
        yield _made(kind, canonical_json(given[kind]), anatomy, runs)


@lru_cache(maxsize=4096)
def _made(kind: str, text: str, anatomy: Anatomy, runs: bool) -> _Made:
    """The entries of one further step. text: its options as JSON. Memoised, so that cells share their parts."""
    options, where, module = json.loads(text), f"steps.{kind}", step(kind)
    if not isinstance(options, dict):
        raise UserError(f"{where}={options}: right: {where}.<option>=<value>")
    order = options.get("order") or ORDERS[module.AFTER]
    if order not in ORDERS:
        raise UserError(f"{where}.order={order}: right: {' or '.join(ORDERS)} (quantization)")
    found = module.resolve({k: v for k, v in options.items() if k != "order"}, anatomy, where, runs)
    used = frozenset({f"{where}.order"} if "order" in options else ())
    filled = {n: found.get(n, Entries(kind)) for n in anatomy.parts}
    return _Made(kind, order == "after", {n: Entries(kind, e.pairs, e.used | used) for n, e in filled.items()})
