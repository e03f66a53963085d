"""Columns of widths: `bits_<part>` in a model's own names, and `bits_<role>` in words that all models share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

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
    called = set(_NAMED.findall("; ".join(map(str, recipes))))  # one search, since a target is behind `; ` or begins
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


class Layout(NamedTuple):
    """The names of a row's columns: those before the columns of roles, these, and those behind them.

    given: the columns of roles that the row has. parts: where it has none and some part is touched, the parts whose widths
    give those of the roles.
    """

    before: tuple[str, ...]
    roles: tuple[str, ...]
    behind: tuple[str, ...]
    given: frozenset[str]
    parts: tuple[str, ...]


class RoleColumns:
    """Gives every row of a table a column `bits_<role>` for each role, also rows of versions without roles."""

    def __init__(self, anatomy_of: Callable[[str], Anatomy | None]) -> None:
        self._anatomy_of = anatomy_of
        self._layouts = cache(_layout)  # rows of one sweep have the same names

    def __call__(self, columns: Mapping[str, object]) -> dict[str, object]:
        """The columns of a row, with those of the roles behind those of the parts.

        A role's column is None where the role is left alone, or where the model is not known.
        """
        names = tuple(columns)
        return self.joined(columns, self.layout(columns, names, width_columns(names)))

    def layout(self, columns: Mapping[str, object], names: tuple[str, ...], widths: Sequence[str]) -> Layout:
        """Where the columns of roles stand in a row. names: of its columns; widths: its `width_columns`."""
        empty = tuple([columns[w] is None for w in widths])
        return self._layouts(names, empty, tuple(_NAMED.findall(str(columns.get("recipe")))))

    def layouts(
        self, names: tuple[str, ...], widths: Sequence[Sequence[object]], recipes: Iterable[object]
    ) -> list[Layout]:
        """The layouts of rows with the same names. widths: the values of each column of `width_columns`; recipes: the
        column `recipe`."""
        known: dict[object, Layout] = {}
        found = []
        for recipe, *own in zip(recipes, *widths, strict=True):
            told = tuple([w is None for w in own]), tuple(_NAMED.findall(str(recipe)))
            layout = known.get(told)
            found.append(layout or known.setdefault(told, self._layouts(names, *told)))
        return found

    def joined(self, columns: Mapping[str, object], layout: Layout) -> dict[str, object]:
        """The columns of a row in this layout."""
        found = self._roles(columns, layout.parts) if layout.parts else {n: columns[n] for n in layout.given}
        roles = {n: found.get(n) for n in layout.roles}
        return {n: columns[n] for n in layout.before} | roles | {n: columns[n] for n in layout.behind}

    def _roles(self, columns: Mapping[str, object], parts: Sequence[str]) -> dict[str, object]:
        shape = self._anatomy_of(str(columns["model"]))
        if shape is None or set(shape.parts) != set(parts):
            return {}
        if all(len(shape.role(role)) < 2 for role in ROLES):
            return {f"bits_{p.role}": columns[f"bits_{p.name}"] for p in shape.parts.values()}
        return {**role_bits(expand(json.loads(str(columns["recipe_json"])), shape))}


def _layout(names: tuple[str, ...], empty: tuple[bool, ...], called: tuple[str, ...]) -> Layout:
    """empty: of each width, whether it is None. called: the roles that the recipe names as parts."""
    widths = dict(zip(width_columns(names), empty, strict=True))
    if not widths:
        return Layout((), (), names, frozenset(), ())
    own = [w for w in widths if (n := w.removeprefix("bits_")) not in ROLES or n in called or widths[w]]
    given = frozenset(widths.keys() - own)
    touched = not given and not all(widths[w] for w in own)
    roles = tuple(c for role in ROLES if (c := f"bits_{role}") not in own)
    rest = [c for c in names if c not in roles]
    last = rest.index(own[-1]) + 1 if own else 0
    parts = tuple(w.removeprefix("bits_") for w in own) if touched else ()
    return Layout(tuple(rest[:last]), roles, tuple(rest[last:]), given, parts)
