"""Config -> recipe: quantization and the further steps that `steps` names. Each is resolved by its own module."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from blip2sweep.canonical import canonical_json
from blip2sweep.compression.quantize.resolve import resolve
from blip2sweep.compression.step import QUANTIZE, STEPS, Entries, step
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.recipe.recipe import PartRecipe, Recipe

ORDERS = ("before", "after")  # of a step, relative to quantization


class _Made(NamedTuple):
    kind: str
    after: bool
    entries: dict[str, Entries]


def resolve_recipe(config: Mapping[str, object], anatomy: Anatomy, runs: bool = True) -> Recipe:
    """The recipe of one cell. runs: it is computed here, so libraries must be installed.

    Raises UserError, one line, when any part of the config would be ignored.
    """
    quantized = resolve(config, anatomy, runs=runs)
    chosen_by = frozenset({"recipe_file" if config.get("recipe_file") else "part"})
    others = list(_others(config.get("steps"), anatomy, runs))
    ordered = [*(m.entries for m in others if not m.after), quantized, *(m.entries for m in others if m.after)]
    parts = {n: _part(anatomy, n, tuple(entries[n] for entries in ordered)) for n in anatomy.parts}
    return Recipe(parts, chosen_by)


@lru_cache(maxsize=65536)
def _part(anatomy: Anatomy, name: str, steps: tuple[Entries, ...]) -> PartRecipe:
    return PartRecipe(anatomy.parts[name], steps)


def _others(options: object, anatomy: Anatomy, runs: bool) -> Iterator[_Made]:
    """The further steps, in the order of STEPS; those from outside by name. options: {kind: its options and `order`}."""
    given = options if isinstance(options, Mapping) else {}
    for kind in given:
        if kind == QUANTIZE:
            raise UserError("steps.quantize: is what quant, per_part and rules say; right: those")
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
