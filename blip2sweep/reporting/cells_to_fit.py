"""The cells that are missing before recipes that were not run can be predicted, as a command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from blip2sweep.analysis.cell_row import Row
from blip2sweep.analysis.cells import quantized
from blip2sweep.analysis.knapsack import FEWEST_CELLS
from blip2sweep.analysis.predict import predictable
from blip2sweep.analysis.recipes import Entry, entries, has_width, overrides_of, part_names
from blip2sweep.errors import UserError
from blip2sweep.recipe.setting import one_scheme
from blip2sweep.reporting.figure import RUN
from blip2sweep.reporting.rerun import context
from blip2sweep.reporting.source import Source

WIDTHS = (4, 3, 8, 2, 6)  # in the order in which they are added, behind those that were run
PLACES = ("part=", "blocks=", "layers=", "per_part.")  # overrides that say where, and not what


def cells_to_fit(source: Source) -> str | None:
    """How many cells of which method are there and needed, and the command that runs more; None where there are enough.

    The command's grid has enough cells by itself, so its sweep needs no other one. What was run is not run again.
    """
    own = [r for r in quantized(predictable(source.cells, source.metric)).to_dict("records") if _of_one_scheme(r)]
    settings = [str(r["setting"]) for r in own]
    most = max(settings, key=settings.count, default=None)
    if most is not None and settings.count(most) >= FEWEST_CELLS:
        return None
    same = [r for r in own if r["setting"] == most]
    there = f"{len(same)} of {most} {'is' if len(same) == 1 else 'are'}" if same else "none is"
    told = f"to predict recipes that were not run, {FEWEST_CELLS} quantized cells of one method are needed, and {there} there"
    try:
        return f"{told}: {RUN} {shlex.join(_words(source, same))}"
    except UserError:  # the sweep varied what its rows do not say
        return told


def _of_one_scheme(row: Row) -> bool:
    return row["part"] != "none" and one_scheme(entries(str(row["recipe_json"])))


def _words(source: Source, same: Sequence[Row]) -> list[str]:
    """A grid of all parts, alone and together, of the method of these cells. Raises UserError as `context` does."""
    base = source.cells[source.cells["part"] == "none"].iloc[0].to_dict()
    row = next((r for r in same if overrides_of(entries(str(r["recipe_json"])))), None)
    recipe = entries(str(row["recipe_json"])) if row else []
    parts = part_names(source.cells)
    places = [*parts, *(["all"] if len(parts) > 1 else [])]
    widths = _widths(same, recipe, -(-FEWEST_CELLS // len(places)))
    scheme = [w for w in overrides_of(recipe) or [] if not w.startswith(PLACES)]
    words = context(source, [recipe], row or base)
    return [*words, f"part={','.join(places)}", *scheme, f"quant.bits={','.join(map(str, widths))}"]


def _widths(same: Sequence[Row], recipe: Sequence[Entry], count: int) -> list[int]:
    """At least so many widths: those of whole cells first."""
    run = sorted({int(r["width"]) for r in same if r["width"] == r["width"]})
    more = [w for w in WIDTHS if w not in run and has_width(recipe, w)]
    return sorted([*run, *more[: max(0, count - len(run))]])
