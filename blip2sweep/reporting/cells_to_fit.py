"""The cells that are missing before recipes that were not run can be predicted, as a command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.cells import quantized
from blip2sweep.analysis.knapsack import FEWEST_CELLS
from blip2sweep.analysis.predict import predictable
from blip2sweep.analysis.recipes import Entry, entries, has_width, overrides_of, part_names
from blip2sweep.console.remarks import many
from blip2sweep.errors import UserError
from blip2sweep.recipe.setting import one_scheme
from blip2sweep.reporting.figure import RUN
from blip2sweep.reporting.next_steps import measured_places
from blip2sweep.reporting.rerun import context
from blip2sweep.reporting.source import Source

WIDTHS = (4, 3, 8, 2, 6)  # in the order in which they are added, behind those that were run
PLACES = ("part=", "blocks=", "layers=", "per_part.")  # overrides that say where, and not what


def cells_to_fit(source: Source) -> str | None:
    """How many cells a command runs, and the command, after which recipes can be predicted; None where they can be now,
    and where the table does not tell the command.

    Its grid has all parts, alone and together, of the method of which most cells were run. It has cells enough by
    itself, so that its sweep needs no other one. What the ledger has is not run again.
    """
    own = [r for r in quantized(predictable(source.cells, source.metric)).to_dict("records") if _of_one_scheme(r)]
    settings = [str(r["setting"]) for r in own]
    most = max(settings, key=settings.count, default=None)
    if settings.count(str(most)) >= FEWEST_CELLS:
        return None
    parts = part_names(source.cells)
    places = [*parts, *(["all"] if len(parts) > 1 else [])]
    row = next((r for r in own if r["setting"] == most and overrides_of(_entries(r))), _base(source))
    widths = _widths([r for r in own if r["setting"] == most], _entries(row), -(-FEWEST_CELLS // len(places)))
    try:
        words = context(source, [_entries(row)], row)
    except UserError:  # the sweep varied what its rows do not say
        return None
    scheme = [w for w in overrides_of(_entries(row)) or [] if not w.startswith(PLACES)]
    words += [f"part={','.join(places)}", *scheme, f"quant.bits={','.join(map(str, widths))}"]
    lines = [f"{p}:all:all" for p in parts] + ["; ".join(f"{p}:all:all" for p in parts)][: len(places) - len(parts)]
    known = {(line, width) for setting, line, width, _ in measured_places(source) if setting == most}
    new = sum((line, float(w)) not in known for line in lines for w in widths)
    return f"{many(new, 'more cell')} by {RUN} {shlex.join(words)}" if new else "those of all sweeps, by --all"


def _entries(row: Row) -> list[Entry]:
    return entries(str(row["recipe_json"]))


def _of_one_scheme(row: Row) -> bool:
    return row["part"] != "none" and one_scheme(_entries(row))


def _base(source: Source) -> Row:
    return source.cells[source.cells["part"] == "none"].iloc[0].to_dict()


def _widths(same: Sequence[Row], recipe: Sequence[Entry], count: int) -> list[int]:
    """At least so many widths: those of whole cells first."""
    run = sorted({int(w) for r in same if (w := number(r, "width")) == w})
    more = [w for w in WIDTHS if w not in run and has_width(recipe, w)]
    return sorted([*run, *more[: max(0, count - len(run))]])
