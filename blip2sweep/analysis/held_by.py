"""Which recipes a format of `blip2sweep export` can hold: cells that were run, and widths that might be."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import pandas as pd

from blip2sweep.analysis.knapsack import Problem
from blip2sweep.errors import UserError, nearest
from blip2sweep.exporting import FORMATS, OWN, SERVED, format_of
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.compact import expand
from blip2sweep.wire.model_section import ModelSection

USUAL = ("compressed-tensors", "openvino", "onnx", "torchao", "bitsandbytes")  # tried in turn where none is asked for
MOST_REASONS = 4
CHECKPOINT = "_checkpoint"  # the end of the method's name in rows of checkpoints that others quantized
OF_OTHERS = "others quantized its layers; right: a cell of a method here"


@dataclass(frozen=True)
class HeldBy:
    """What one format holds of one model. form: a name of `exporting.FORMATS`. purpose: who is to serve it."""

    form: str
    purpose: str | None
    section: ModelSection
    anatomy: Anatomy

    @property
    def name(self) -> str:
        """As `--for` has it."""
        return self.purpose or self.form

    def why_not(self, recipe: Recipe) -> list[str]:
        """Why the format cannot hold a recipe; empty where it can."""
        return format_of(self.form).mistakes(recipe, self.section, self.purpose)

    def why_not_entries(self, recipe: Sequence[Mapping[str, object]]) -> list[str]:
        """The same of a recipe in its short form, which the row of a quantized checkpoint has of methods of others."""
        if any(str(e.get("method")).endswith(CHECKPOINT) for e in recipe):
            return [OF_OTHERS]
        return self.why_not(expand(recipe, self.anatomy))

    def refused(self, cells: pd.DataFrame) -> dict[str, list[str]]:
        """{key: why not} of the cells that the format cannot hold, the baseline too where it is none of these."""
        why = cache(lambda text: self.why_not_entries(json.loads(text)))
        found = {str(k): why(str(r)) for k, r in zip(cells["key"], cells["recipe_json"], strict=True)}
        return {key: told for key, told in found.items() if told}

    def narrowed(self, problem: Problem) -> Problem | None:
        """The problem with the widths of each layer group that the format holds; None where only 0 is left."""
        none = [0] * len(problem.options)
        options = [
            [b for b in own if not b or not self.why_not(problem.recipe([*none[:j], b, *none[j + 1 :]]))]
            for j, own in enumerate(problem.options)
        ]
        return replace(problem, options=options) if any(map(any, options)) else None


def format_named(name: str) -> tuple[str, str | None]:
    """(format, purpose) of `--for`, which names a format or who serves one. Raises UserError for neither."""
    if name in SERVED:
        return SERVED[name], name
    if name not in FORMATS:
        raise UserError(f"--for {name}: no such format; {nearest(name, [*FORMATS, *SERVED])}")
    return name, None


def forms_of(backend: str) -> tuple[str, ...]:
    """The formats of cells of a back end: the one that it runs, or those that torch's cells have."""
    return (OWN[backend],) if backend in OWN else USUAL


def back_end_of(form: str) -> str:
    """The back end that runs a format; torch's cells stand for the others."""
    return next((backend for backend, own in OWN.items() if own == form), "torch")


def left_out(name: str, cells: pd.DataFrame, refused: dict[str, list[str]]) -> str | None:
    """One line on the cells that a format cannot hold, with the reasons by how many have them; None where there is none.

    name: of the format. cells: those that compete.
    """
    touched = [str(k) for k in cells.loc[cells["part"] != "none", "key"]]
    gone = [refused[k] for k in touched if k in refused]
    if not gone:
        return None
    return f"{name} cannot hold {len(gone)} of {len(touched)} cells, which are left out: {'; '.join(_reasons(gone))}"


def holds_nothing(name: str, cells: pd.DataFrame, refused: dict[str, list[str]]) -> str | None:
    """One line where a format can hold none of the compressed cells: why, and what it holds; else None."""
    gone = [refused.get(str(k)) for k in cells.loc[cells["part"] != "none", "key"]]
    if not gone or not all(gone):
        return None
    told = [own for own in gone if own]
    rights = dict.fromkeys(why.partition("; right: ")[2] for own in told for why in own)
    of = f"{name} can hold none of the {len(told)} compressed cells: {'; '.join(_reasons(told))}"
    return f"{of}; right: a sweep of what it holds: {'; '.join(filter(None, rights))}"


def _reasons(refusals: Sequence[Sequence[str]]) -> Iterator[str]:
    counted = Counter(told for why in refusals for told in dict.fromkeys(map(_short, why)))
    for told, n in counted.most_common(MOST_REASONS):
        yield f"{told} ({n} cell{'s' * (n > 1)})"
    if len(counted) > MOST_REASONS:
        yield f"and {len(counted) - MOST_REASONS} more reasons"


def _short(told: str) -> str:
    """A reason without what would be right, and without the layers that have it and their shapes."""
    return re.sub(r"^--for \w+: | of a layer of \d+ x \d+| \(.*", "", told.partition("; right: ")[0])
