"""Which cells were timed, how they compare with the baseline of the same turns, and why the others were not."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.recipe.compact import expand
from blip2sweep.recipe.simulated import why_simulated

RATIO = "latency_ratio"  # of single images: the cell's median over that of the baseline in the same turns
NEVER = "never timed; right: their sweep again with analysis.latency=true"
RUN = ("openvino", "onnxruntime")  # back ends whose kernels are those of the recipe


def is_timed(row: Row) -> bool:
    """Whether a row has a time."""
    return math.isfinite(number(row, RATIO))


def fast_enough(cells: pd.DataFrame, limit: float) -> pd.DataFrame:
    """The timed cells that take at most `limit` of their baseline's time. Raises UserError where there is none."""
    times = cells[RATIO].astype(float) if RATIO in cells else pd.Series(math.nan, index=cells.index)
    timed = cells[times.notna() & (cells["part"] != "none")]
    if timed.empty:
        raise UserError(
            f"--latency {limit:g}: no compressed cell was timed; right: the sweep again with analysis.latency=true, and "
            f"cells whose kernels run, such as backend=openvino, quant.packed=true or drop_blocks=…"
        )
    found = cells[times <= limit]
    if found.empty:
        fastest = timed.sort_values(RATIO).iloc[0]
        raise UserError(
            f"--latency {limit:g}: none of {len(timed)} timed cells is so fast; cell {fastest['key']} is the fastest and "
            f"takes {fastest[RATIO]:.2f} of its baseline's time; right: a limit from there, or other cells"
        )
    return found


def left_untimed(cells: pd.DataFrame, anatomy: Anatomy | None) -> str | None:
    """One line on the compressed cells without a time, and why; None where there is none."""
    rows = cells[cells["part"] != "none"].to_dict("records")
    why = [_why(row, anatomy) for row in rows if not is_timed(row)]
    if not why:
        return None
    counted = "; ".join(f"{n} {reason}" for reason, n in Counter(why).most_common())
    return f"{len(why)} of {len(rows)} compressed cells have no time and are left out: {counted}"


def _why(row: Row, anatomy: Anatomy | None) -> str:
    """Why a cell has no time, as far as its recipe tells."""
    backend = str(row.get("backend") or "").partition(" ")[0]
    if anatomy is None or backend in RUN:
        return NEVER
    try:
        recipe = expand(json.loads(str(row["recipe_json"])), anatomy)
    except (UserError, KeyError):  # of layers that others quantized
        return NEVER
    return why_simulated(recipe) or NEVER


def devices(cells: pd.DataFrame) -> Sequence[str]:
    """Where cells were timed; their ratios are each of its own place."""
    return sorted(set(cells["latency_device"].dropna().astype(str))) if "latency_device" in cells else []
