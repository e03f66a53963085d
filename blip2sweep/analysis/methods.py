"""Methods compared on matched cells: their recipes differ in the method alone, and their sizes are equal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.cells import quantized
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.paired import paired_difference
from blip2sweep.analysis.recipes import Entry, entries

REFERENCE = "rtn"
SAME_SIZE = 0.02  # bits per weight
PLACE = ("target", "bits", "strategy", "group_size", "input")
SIZES = ("bits_per_weight", "bits_per_weight_touched")


def matched(cells: pd.DataFrame, metric: str, draws: Draws | None, reference: str = REFERENCE) -> pd.DataFrame:
    """One row for each cell and its match: the reference method's cell that differs in the method alone.

    Two matched cells have the same targets, widths, strategy, group size and quantized inputs, and the same symmetry
    where both methods have that option. Their bits per weight agree within .02, both of the whole model and of what was
    touched. `gain` is the reference's drop minus the method's: positive is better than the reference. `label` names the
    place: two rows of one label differ in method, method options or calibration only. `seed` tells calibration seeds
    apart where there are several. Seeds are points; the interval does not hold the spread between them.
    """
    places: dict[str, list[_Cell]] = {}
    cells = quantized(cells)
    for row in cells[(cells["part"] != "none") & ~cells["several_methods"]].to_dict("records"):
        cell = _Cell(row, entries(str(row["recipe_json"])))
        places.setdefault(_place(cell.recipe), []).append(cell)
    found = [_pair(cell, ref, metric, draws) for same in places.values() for ref in same if ref.method == reference
             for cell in same if cell.method != reference and _alike(cell, ref)]  # fmt: skip
    return pd.DataFrame(found)


class _Cell(NamedTuple):
    row: Row
    recipe: Sequence[Entry]

    @property
    def method(self) -> str:
        return self.recipe[0]["method"]


def _place(recipe: Sequence[Entry]) -> str:
    """What a recipe does, whatever the method."""
    return json.dumps([[e.get(k) for k in PLACE] for e in recipe], sort_keys=True)


def _alike(cell: _Cell, ref: _Cell) -> bool:
    symmetric = zip(cell.recipe, ref.recipe, strict=True)
    if any(_differ(one.get("symmetric"), other.get("symmetric")) for one, other in symmetric):
        return False
    return all(abs(number(cell.row, c) - number(ref.row, c)) <= SAME_SIZE for c in SIZES)


def _differ(one: bool | None, other: bool | None) -> bool:
    """Whether two methods differ in symmetry. A method without the option matches both; its size tells them apart."""
    return one is not None and other is not None and one != other


def _pair(cell: _Cell, ref: _Cell, metric: str, draws: Draws | None) -> dict[str, object]:
    row, key, reference = cell.row, str(cell.row["key"]), str(ref.row["key"])
    own = {c: row[c] for c in ("key", "method", "setting", "line", "parts", "width", "bits_per_weight", "seed")}
    gain = number(ref.row, f"drop_{metric}") - number(row, f"drop_{metric}")
    gain, low, high = paired_difference(draws, reference, key, gain)
    return {**own, "label": _label(ref.recipe), "reference": reference, "gain": gain, "low": low, "high": high}


def _label(recipe: Sequence[Entry]) -> str:
    """`vision first mlp + language 4 bits`; `all` and the default strategy are left out."""
    widths = list(dict.fromkeys(e["bits"] for e in recipe))
    places = [" ".join(w for w in e["target"].split(":") if w != "all") for e in recipe]
    if len(widths) > 1:
        places = [f"{place} {e['bits']}" for place, e in zip(places, recipe, strict=True)]
    schemes = dict.fromkeys(_scheme_label(e) for e in recipe)
    return " + ".join(places) + (f" {widths[0]}" if len(widths) == 1 else "") + " bits" + "".join(schemes)


def _scheme_label(entry: Entry) -> str:
    inputs = entry.get("input")
    words = [f" {entry['strategy']}{entry.get('group_size') or ''}"] if entry.get("strategy") != "channel" else []
    words += [" symmetric"] if entry.get("symmetric") else []
    words += [f", inputs {inputs['bits']}"] if inputs else []
    return "".join(words)
