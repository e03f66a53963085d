"""Columns of widths: `bits_<part>` in a model's own names, and `bits_<role>` in words that all models share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache

from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy, anatomy
from blip2sweep.models.part import ROLES
from blip2sweep.models.shipped import model_config, shipped_models
from blip2sweep.recipe.compact import expand
from blip2sweep.recipe.recipe import PartRecipe, Recipe
from blip2sweep.recipe.trained import off_grid
from blip2sweep.wire.model_section import ModelSection

FULL = 16  # the width that stands for full precision, whatever a number is stored in; `bits=16` means left alone
_NAMED = re.compile(
    rf"(?:^|; )({'|'.join(ROLES)})[:.]"
)  # a target in a recipe's text whose part has the name of a role


def width_columns(names: Iterable[object]) -> list[str]:
    """All columns of mean widths, of parts and of roles, in their order."""
    return [n for n in map(str, names) if n.startswith("bits_") and not n.startswith("bits_per_")]


def part_columns(names: Iterable[object], recipes: Iterable[object]) -> list[str]:
    """The columns of widths of parts, in their order.

    recipes: of the rows, since a part may have the name of a role.
    """
    found = width_columns(names)
    if not {f"bits_{role}" for role in ROLES}.intersection(found):
        return found
    called = {name for text in recipes for name in _NAMED.findall(str(text))}
    return [c for c in found if (name := c.removeprefix("bits_")) not in ROLES or name in called]


def mean_bits(parts: Iterable[PartRecipe]) -> float | None:
    """The mean number of bits over all touched weights of some parts. None where they are left alone.

    Weights that training has put off the grid count as full precision.
    """
    sums = [_sums(part) for part in parts]
    weights = sum(w for w, _ in sums)
    return sum(bits for _, bits in sums) / weights if weights else None


@lru_cache(maxsize=65536)
def _sums(part: PartRecipe) -> tuple[int, int]:
    """(touched weights, their bits)."""
    touched, off = list(part.touched()), off_grid(part)
    bits = (x.weights * (FULL if x.path in off else s.weights.num_bits) for x, s in touched)
    return sum(x.weights for x, _ in touched), sum(bits)


def role_bits(recipe: Recipe) -> dict[str, float]:
    """{bits_<role>: mean width over its parts} of the roles that are touched."""
    having = {role: mean_bits(p for p in recipe.parts.values() if p.part.role == role) for role in ROLES}
    return {f"bits_{role}": bits for role, bits in having.items() if bits is not None}


class Anatomies:
    """{name of a model: its anatomy, or None where it is not known}, for rows of a table.

    configs: gives {name: model config} of models that are not shipped. It is called once, and only where a row needs
    it.
    """

    def __init__(self, configs: Callable[[], Mapping[str, ModelSection]]) -> None:
        self._configs = cache(configs)
        self._known: dict[str, Anatomy | None] = {}

    def __call__(self, model: str) -> Anatomy | None:
        if model not in self._known:
            self._known[model] = self._read(model)
        return self._known[model]

    def _read(self, model: str) -> Anatomy | None:
        try:
            config = model_config(model) if model in shipped_models() else self._configs().get(model)
            return anatomy(config) if config else None
        except UserError:
            return None


class RoleColumns:
    """Gives every row of a table a column `bits_<role>` for each role, also rows of versions without roles."""

    def __init__(self, anatomy_of: Callable[[str], Anatomy | None]) -> None:
        self._anatomy_of = anatomy_of
        self._widths = cache(width_columns)  # rows of one sweep have the same names
        self._order = cache(_ordered)

    def __call__(self, columns: Mapping[str, object]) -> dict[str, object]:
        """The columns of a row, with those of the roles behind those of the parts.

        A role's column is None where the role is left alone, or where the model is not known.
        """
        names = tuple(columns)
        widths = self._widths(names)
        if not widths:
            return dict(columns)
        called = _NAMED.findall(str(columns.get("recipe")))
        own = [w for w in widths if (n := w.removeprefix("bits_")) not in ROLES or n in called or columns[w] is None]
        found = {w: columns[w] for w in widths if w not in own}
        if not found and any(columns[w] is not None for w in own):
            found = self._roles(columns, [w.removeprefix("bits_") for w in own])
        order, roles = self._order(names, tuple(own))
        return {c: found.get(c) if c in roles else columns[c] for c in order}

    def _roles(self, columns: Mapping[str, object], parts: list[str]) -> dict[str, object]:
        shape = self._anatomy_of(str(columns["model"]))
        if shape is None or set(shape.parts) != set(parts):
            return {}
        if all(len(shape.role(role)) < 2 for role in ROLES):
            return {f"bits_{p.role}": columns[f"bits_{p.name}"] for p in shape.parts.values()}
        return {**role_bits(expand(json.loads(str(columns["recipe_json"])), shape))}


def _ordered(names: tuple[str, ...], own: tuple[str, ...]) -> tuple[list[str], frozenset[str]]:
    """(the columns of a row, those of the roles among them). names: as they came. own: the widths of parts."""
    roles = [c for role in ROLES if (c := f"bits_{role}") not in own]
    rest = [c for c in names if c not in roles]
    last = rest.index(own[-1]) + 1 if own else 0
    return [*rest[:last], *roles, *rest[last:]], frozenset(roles)
