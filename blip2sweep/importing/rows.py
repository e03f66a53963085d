"""Ledger rows of results that were not computed here. An import writes one journal; a second import replaces it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypedDict, Unpack

from blip2sweep.canonical import canonical_json, digest
from blip2sweep.files import write_atomic
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.dtypes import BITS
from blip2sweep.recipe import PartRecipe, Recipe
from blip2sweep.recipe.columns import recipe_columns
from blip2sweep.recipe.compact import expand
from blip2sweep.recipe.size import alike
from blip2sweep.results.journal import note_closed, note_opened
from blip2sweep.results.lines import sealed
from blip2sweep.results.sweeps import Sweep
from blip2sweep.wire.stopping import Stopped

# The version in imported keys. The other SEMANTICS do not count: results from elsewhere do not change with our
# computation.
SEMANTICS = 1
Entry = dict[str, object]  # of a recipe in compact form: target, method, bits, …


class Remarks(TypedDict, total=False):
    """What an import adds to a `result` line.

    predictions: their hash; files: notes of the files on disk; configs: numbers of the study's configs with this recipe;
    noop_configs: how many of them have an entry without an effect; stopped: of a cell of a table of ours that stopped early.
    """

    predictions: str | None
    files: dict[str, list[int]]
    configs: list[int]
    noop_configs: int
    stopped: Stopped


class Result(Remarks):
    """A `result` line of an import. columns: of the table, without metrics; published: metrics."""

    event: str
    time: float
    host: str
    key: str
    imported: str
    columns: dict[str, object]
    published: dict[str, float]
    layers_changed: object


@dataclass(frozen=True)
class Source:
    """The origin of imported rows, and what they have in common. params: number of parameters of the whole model.

    stored: the dtype in which sizes count what is not quantized. Nobody says how such a model was written, and the key
    does not have it.
    """

    name: str
    model: str
    anatomy: Anatomy = field(repr=False)
    params: int
    identity: Mapping[str, object]  # task, data, generation, dtype, samples: columns that are in the key
    stored: str = "float16"

    def key(self, recipe: Recipe) -> str:
        """12 hex digits, as for a cell.

        A cell computed here cannot have them: its key holds the weights' fingerprint.
        """
        identity = {"imported": self.name, "model": self.model, "semantics": SEMANTICS, **self.identity}
        touched = {name: part.hash for name, part in recipe.parts.items() if not part.empty}
        return digest({**identity, "recipe": digest(touched) if touched else None})[:12]

    def columns(self, recipe: Recipe) -> dict[str, object]:
        """The table's columns of a row, without metrics."""
        untouched = untouched_recipe(self.anatomy)
        head = {"model": self.model, "weights": None, "revision": None, **self.identity, "stored": self.stored}
        sized = recipe_columns(recipe, alike(self.params, BITS[self.stored]))
        return {**head, "semantics": SEMANTICS, **sized, "baseline": self.key(untouched)}


class Recipes:
    """Entries (`{target, method, bits, …}`) -> recipe.

    The recipes of a grid share their parts, so each is expanded once. A recipe with further steps is expanded whole,
    since all its parts have the same steps.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self._part = lru_cache(maxsize=None)(self._expanded)
        self._whole = lru_cache(maxsize=None)(lambda text: expand(json.loads(text), anatomy))

    def __call__(self, entries: Sequence[Entry]) -> Recipe:
        if any("step" in entry for entry in entries):
            return self._whole(canonical_json(list(entries)))
        own: dict[str, list[Entry]] = {name: [] for name in self.anatomy.parts}
        for entry in entries:
            own[str(entry["target"]).partition(":")[0].partition(".")[0]].append(entry)
        return Recipe({name: self._part(name, canonical_json(listed)) for name, listed in own.items()})

    def _expanded(self, part: str, entries: str) -> PartRecipe:
        return expand(json.loads(entries), self.anatomy).parts[part]


def untouched_recipe(anatomy: Anatomy) -> Recipe:
    """The recipe of the baseline."""
    return Recipe.untouched(anatomy.parts)


def result(source: Source, recipe: Recipe, published: dict[str, float], **remarks: Unpack[Remarks]) -> Result:
    """One `result` line. published: metrics as the source gives them."""
    columns = source.columns(recipe)
    return {
        "event": "result",
        "time": time.time(),
        "host": socket.gethostname(),
        "key": source.key(recipe),
        "imported": source.name,
        "columns": columns,
        "published": published,
        "layers_changed": columns["layers_touched"],
        **remarks,
    }


def write_rows(output_dir: Path, sweep: Sweep, results: Iterable[Mapping[str, object]]) -> None:
    """Write the journal of an import, and a sweep of its rows so that `table` and `report` find them by name."""
    path = output_dir / "journals" / f"imported-{sweep.name}.jsonl"
    lines = [sealed(r, i) for i, r in enumerate(results)]
    write_atomic(path, b"".join(lines))
    note_opened(path)
    note_closed(path, len(lines))
    sweep.write(output_dir)
