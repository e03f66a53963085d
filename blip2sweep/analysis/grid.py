"""The interaction map: the drop by the widths of the parts, for cells that treat whole parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from blip2sweep.analysis.cell_row import Row
from blip2sweep.analysis.cells import all_blocks, one_seed, quantized
from blip2sweep.analysis.recipes import entries, part_names
from blip2sweep.recipe.setting import part_of

FREE = 16  # the width that stands for a part that is left alone, whatever its numbers are stored in


def width_grid(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row for each cell whose parts are whole: `setting, <part> …, value, drop, low, high`.

    The columns of parts are widths in bits, 16 where a part is left alone. A part is whole where all its blocks are
    touched, in the layers of the largest such cell; so cells of the published study count although its quantizer did
    not reach all layers. Of cells that differ in the calibration seed alone, the one of the lowest seed is shown.
    """
    cells, parts = quantized(cells), part_names(cells)
    whole = {p: _largest(cells, p) for p in parts}
    rows = [r for row in one_seed(cells).to_dict("records") if (r := _grid_row(row, parts, whole, metric))]
    return pd.DataFrame(rows, columns=["key", "setting", *parts, "size", "value", "drop", "low", "high", "recipe"])


def _largest(cells: pd.DataFrame, part: str) -> set[str]:
    """The targets in a part of the cell that touches most weights of whole parts, alone if there is such a cell."""
    alone = cells[cells["parts"] == part]
    having = alone if len(alone) else cells[[part in p.split("+") for p in cells["parts"]]]
    having = having[having["recipe_json"].map(lambda text: all_blocks(text, part)).astype(bool)]
    if having.empty:
        return set()
    most = having.sort_values("params_touched")["recipe_json"].iloc[-1]
    return {e["target"] for e in entries(str(most)) if part_of(e) == part}


def _grid_row(row: Row, parts: Sequence[str], whole: Mapping[str, set[str]], metric: str) -> dict[str, object] | None:
    recipe = entries(str(row["recipe_json"]))
    widths: dict[str, float] = {}
    for part in parts:
        own = [e for e in recipe if part_of(e) == part]
        if own and ({e["target"] for e in own} != whole[part] or len({e["bits"] for e in own}) > 1):
            return None
        widths[part] = float(own[0]["bits"]) if own else float(FREE)
    cell = {"key": row["key"], "setting": row["setting"], "size": row["bits_per_weight"], "value": row[metric]}
    ends = {e: row.get(f"drop_{metric}{c}", math.nan) for e, c in (("drop", ""), ("low", "_low"), ("high", "_high"))}
    return {**cell, **widths, **ends, "recipe": row["recipe"]}
