"""All kinds of compression on one scale: every cell with what it keeps, of the baseline and of its control, and what it
costs."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from blip2sweep.analysis.cell_row import Row
from blip2sweep.analysis.cells import one_seed
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.dropoff import retained_ends
from blip2sweep.analysis.recipes import Entry, entries
from blip2sweep.analysis.recovery import how_text, measured
from blip2sweep.analysis.steps import RECOVER, of_kind

COSTS = ("bits_per_weight", "params", "params_nonzero", "gflops", "latency_ms_median")


def every_kind(cells: pd.DataFrame, metric: str, draws: Draws | None) -> pd.DataFrame:
    """One row for each cell but the baseline: `kind, what, how`, what it keeps and loses (see `recovery`), and COSTS.

    what: all but the recovery, in words; of a control *uncompressed*. how: the recovery and its steps, '' where there
    is none. Rows of one `what` stand together, in the order in which they come first. Of several calibration seeds the
    lowest is there. A cost that no cell has is left out.
    """
    chosen = one_seed(cells)
    rows = [_row(row, metric) for row in chosen[chosen["part"] != "none"].to_dict("records")]
    if not rows:
        return pd.DataFrame(columns=["kind", "what", "how", "key"])
    out = pd.DataFrame(rows)
    out["retained_low"], out["retained_high"] = retained_ends(out["key"], draws)
    first = {what: i for i, what in reversed(list(enumerate(out["what"])))}
    out = out.sort_values("what", key=lambda names: names.map(first), kind="stable").reset_index(drop=True)
    known = [c for c in COSTS if c in cells and cells[c].notna().any()]
    return out.merge(cells[["key", *known]], on="key", how="left")


def _row(row: Row, metric: str) -> dict[str, object]:
    recipe = entries(str(row["recipe_json"]))
    return {
        "kind": row["kind"],
        "what": row["what"],
        "how": _how(recipe),
        **measured(row, metric),
    }


def _how(recipe: list[Entry]) -> str:
    """`LoRA r8 distill on language, 150 steps`."""
    own: list[Mapping[str, object]] = list(of_kind(recipe, RECOVER))
    return f"{how_text(recipe)}, {own[0].get('steps')} steps" if own else ""
