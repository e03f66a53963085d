"""Ledger rows of results that were not computed here: one journal an import, written whole, so importing again replaces it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from blip2sweep.canonical import canonical_json, digest
from blip2sweep.files import write_atomic
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.recipe import PartRecipe, Recipe
from blip2sweep.recipe.columns import recipe_columns
from blip2sweep.recipe.compact import expand
from blip2sweep.results.journal import note_closed, note_opened
from blip2sweep.results.lines import sealed
from blip2sweep.results.sweeps import Sweep

# Of imported keys: what changes how cells are computed here changes nothing of results that came from elsewhere.
SEMANTICS = 1


@dataclass(frozen=True)
class Source:
    """Where imported rows come from, and what they have in common. params: parameters of the whole model."""

    name: str
    model: str
    anatomy: Anatomy = field(repr=False)
    params: int
    identity: dict[str, Any]  # task, data, generation, dtype, samples: columns, and part of the key

    def key(self, recipe: Recipe) -> str:
        """12 hex digits, as a cell's; never those of a cell computed here, whose weights are known by their content."""
        identity = {"imported": self.name, "model": self.model, "semantics": SEMANTICS, **self.identity}
        touched = {name: part.hash for name, part in recipe.parts.items() if not part.empty}
        return digest({**identity, "recipe": digest(touched) if touched else None})[:12]

    def columns(self, recipe: Recipe) -> dict[str, Any]:
        untouched = Recipe.untouched({n: p.part for n, p in recipe.parts.items()})
        head = {"model": self.model, "weights": None, "revision": None, **self.identity, "semantics": SEMANTICS}
        return {**head, **recipe_columns(recipe, self.params), "baseline": self.key(untouched)}


class Recipes:
    """Entries (`{target, method, bits, …}`) -> recipe. A grid's cells share their parts, each is expanded once."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self._part = lru_cache(maxsize=None)(self._expanded)

    def __call__(self, entries: Sequence[dict[str, Any]]) -> Recipe:
        own: dict[str, list[dict[str, Any]]] = {name: [] for name in self.anatomy.parts}
        for entry in entries:
            own[str(entry["target"]).partition(":")[0].partition(".")[0]].append(entry)
        return Recipe({name: self._part(name, canonical_json(listed)) for name, listed in own.items()})

    def _expanded(self, part: str, entries: str) -> PartRecipe:
        return expand(json.loads(entries), self.anatomy).parts[part]


def result(source: Source, recipe: Recipe, published: dict[str, float], **told: Any) -> dict[str, Any]:
    """One `result` line. published: metrics as they were given; told: predictions (hash, or None) and remarks."""
    columns = source.columns(recipe)
    common = {"event": "result", "time": time.time(), "host": socket.gethostname(), "key": source.key(recipe)}
    return {
        **common,
        "imported": source.name,
        "columns": columns,
        "published": published,
        "layers_changed": columns["layers_touched"],
        **told,
    }


def write_rows(output_dir: Path, sweep: Sweep, results: Iterable[dict[str, Any]]) -> None:
    """The journal of an import, and a sweep of its rows so that `table` and `report` find them by name."""
    path = output_dir / "journals" / f"imported-{sweep.name}.jsonl"
    lines = [sealed(r, i) for i, r in enumerate(results)]
    write_atomic(path, b"".join(lines))
    note_opened(path)
    note_closed(path, len(lines))
    sweep.write(output_dir)
