"""What training after compression gives back: cells before and after their recovery, and beside their controls.

The control of a recovered cell is the uncompressed model with the same recovery. Training on the task alone may beat
the baseline; so a loss against the baseline and one against the control are two numbers, and both are here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.dropoff import retained_ends
from blip2sweep.analysis.recipes import Entry, by_recipe, entries, identity
from blip2sweep.analysis.steps import METHODS, RECOVER, before_recovery, of_kind
from blip2sweep.metrics import METRICS
from blip2sweep.recipe.setting import place

CURVE = ["what", "how"]  # columns that say which curve a cell is on
SHOWN = ("method", "loss", "rank")  # `how` always tells them
OWN = (
    "step",
    "target",
    "steps",
    "seed",
    *SHOWN,
)  # what is a column of its own, or says nothing to people
COLUMNS = ["key", *CURVE, "steps", "chosen", "seed", "merged", "model_bytes", "value", "retained", "retained_low", "retained_high",
           "drop", "drop_low", "drop_high", "control", "drop_control", "drop_control_low", "drop_control_high",
           "retained_control", "is_control", "point"]  # fmt: skip


def recovery(cells: pd.DataFrame, metric: str, draws: Draws | None) -> pd.DataFrame:
    """One row for each recovered cell, and one at step 0 for the cell that it began from, where that was run.

    `what`: what was done before the recovery, *uncompressed* for a control. `how`: the recovery without its steps and
    seed, with the training samples where these vary. `steps`: those trained; `chosen`: the one that held-out images
    chose. `retained`: in % of the baseline; its interval is that of the ratio. `retained_control`: in % of the control.
    `drop_control`: control − cell, with its interval. Each curve has one row at each number of steps, of the lowest
    seed; others have `point` set.
    """
    recipes = [entries(str(r)) for r in cells["recipe_json"]]
    trained = [bool(of_kind(r, RECOVER)) for r in recipes]
    if not any(trained):
        return pd.DataFrame(columns=COLUMNS)
    varied = _varied([r for r, hit in zip(recipes, trained, strict=True) if hit])
    known, every = by_recipe(cells), cells.to_dict("records")
    rows = []
    for row, recipe, hit in zip(every, recipes, trained, strict=True):
        if hit:
            first = known.get(identity(before_recovery(recipe), str(row.get("calibrated_on", ""))))
            rows += _rows(row, None if first is None else every[first], recipe, varied, metric)
    out = pd.DataFrame(rows).drop_duplicates([*CURVE, "steps", "key"])
    out["retained_low"], out["retained_high"] = retained_ends(out["key"], draws)
    out = out.sort_values([*CURVE, "steps", "seed"], kind="stable").reset_index(drop=True)
    return out.assign(point=out.duplicated([*CURVE, "steps"]))[COLUMNS]


def _varied(recipes: Sequence[Sequence[Entry]]) -> list[str]:
    """The further options of recoveries that differ between cells."""
    seen: dict[str, set[str]] = {}
    for entry in (e for r in recipes for e in of_kind(r, RECOVER)):
        for name, value in entry.items():
            seen.setdefault(name, set()).add(str(value))
    return [k for k, values in seen.items() if k not in OWN and len(values) > 1]


def _rows(
    row: Row, first: Row | None, recipe: Sequence[Entry], varied: Sequence[str], metric: str
) -> list[dict[str, object]]:
    before, learnt_from = before_recovery(recipe), row.get("learnt_from")
    how = how_text(recipe, varied)
    names = {"what": row["what"], "how": f"{how}, {learnt_from}" if learnt_from else how}
    fields: Mapping[str, object] = of_kind(recipe, RECOVER)[0]
    steps, seed = fields.get("steps"), fields.get("seed")
    after = {**names, **measured(row, metric), "steps": steps, "seed": seed, "is_control": not before,
             "chosen": row.get("recover_steps"), "merged": row.get("merged")}  # fmt: skip
    start = [] if first is None else [{**names, **measured(first, metric), "steps": 0, "is_control": not before}]
    return [*start, after]


def measured(row: Row, metric: str) -> dict[str, object]:
    """Metric, losses and size of one cell. What is against a control is NaN where there is none but the cell itself."""
    base = number(row, f"baseline_{metric}")
    columns = {"drop": f"drop_{metric}", "control": f"control_{metric}", "drop_control": f"drop_control_{metric}"}
    ends = {f"{n}_{end}": f"{c}_{end}" for n, c in columns.items() if n != "control" for end in ("low", "high")}
    found = {n: number(row, c) for n, c in {**columns, **ends}.items()}
    if row.get("control") == row["key"]:
        found |= {n: math.nan for n in found if "control" in n}
    shares = {
        "retained": retained(metric, base, found["drop"]),
        "retained_control": retained(metric, found["control"], found["drop_control"]),
    }
    return {
        "key": row["key"],
        "value": number(row, metric),
        "model_bytes": number(row, "model_bytes"),
        **found,
        **shares,
    }


def retained(metric: str, level: float, drop: float) -> float:
    """What is left of a level after a drop, in %; NaN where the level is 0 or unknown."""
    if not abs(level) > 0 or math.isnan(drop):
        return math.nan
    return float(100 * METRICS[metric].retained(abs(level), drop))


def _option(name: str, value: object) -> str:
    return ("merged" if value else "unmerged") if name == "merged" else f"{name} {value}"


def how_text(recipe: Sequence[Entry], varied: Sequence[str] = ()) -> str:
    """The recovery of a recipe without steps and seed: `LoRA r8 distill on connector language`.

    varied: further options to tell.
    """
    own: list[Mapping[str, object]] = list(of_kind(recipe, RECOVER))
    first = own[0]
    words = [METHODS.get(str(first.get("method")), str(first.get("method")))]
    words += [f"r{first['rank']}"] if first.get("rank") else []
    words += [str(first["loss"])] if first.get("loss") else []
    words += [_option(k, first[k]) for k in varied if first.get(k) is not None]
    again = ", quantized again" if len(recipe) > len(before_recovery(recipe)) + len(own) else ""
    return f"{' '.join(words)} on {' '.join(place(e) for e in own)}{again}"
