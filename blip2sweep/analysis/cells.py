"""What the cells of a table have in common: one model, one task, and recipes taken apart into settings, lines and widths.

Words used all over this room: a *setting* is a scheme without its width (`minmax/tensor`), a *line* is a recipe without its
widths (`vit:all:all; llm:all:mlp`), so a drop-off curve is the cells of one setting and one line, ordered by width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd

from blip2sweep.errors import UserError

MAIN_METRICS = ("cider", "vqa_accuracy", "nll")
SAME = ("model", "dtype", "task", "data", "generation")  # what must agree before two cells are compared
NO_BASELINE = "no baseline cell, so there is no drop to show; right: run the same command once more, or add part=none"


def main_metric(table: pd.DataFrame) -> str | None:
    """CIDEr for captions, accuracy for VQA, else the likelihood; None where no cell has a value."""
    return next((m for m in MAIN_METRICS if m in table and table[m].notna().any()), None)


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """The finished, current cells of a table, taken apart (see `taken_apart`).

    Raises UserError, one line, for a table without finished cells, for one that mixes models, dtypes, tasks, data or
    generation settings, for one without baseline, and for one whose main metric is nowhere a number.
    """
    if table.empty:
        raise UserError("the ledger has no cell yet; right: run a sweep, or wait for its first cell")
    stale = table["stale"].fillna(False).astype(bool) if "stale" in table else pd.Series(False, index=table.index)
    done = table[(table["status"] == "done") & ~stale]
    if done.empty:
        raise UserError(f"none of {len(table)} cells is finished; right: wait, or `blip2sweep status` for what failed")
    refuse_mixed(done)
    metric = main_metric(done)
    if metric is None:
        raise UserError("no cell has a metric that is a number; right: `blip2sweep rescore`")
    if not (done["part"] == "none").any() or f"drop_{metric}" not in done:
        raise UserError(NO_BASELINE)
    return taken_apart(done)


def refuse_mixed(table: pd.DataFrame) -> None:
    """Cells of different models, tasks or data are not compared; the message says which there are."""
    for column in (c for c in SAME if c in table):
        values = sorted({str(v) for v in table[column]})
        if len(values) > 1:
            raise UserError(
                f"cells of {len(values)} kinds of {column} are not compared: {', '.join(values[:4])}; "
                f"right: choose one sweep, or --{column if column in ('model', 'task', 'dtype') else 'sweep'} {values[0]}"
            )


def taken_apart(table: pd.DataFrame) -> pd.DataFrame:
    """The table with columns `setting`, `line`, `width` (NaN where there are several) and `parts` ('' for the baseline)."""
    known = [_apart(str(r)) for r in table["recipe_json"]]
    columns = pd.DataFrame(known, columns=["setting", "line", "width", "parts"], index=table.index)
    absent = {c: None for c in ("method", "blocks", "layers") if c not in table}  # a table leaves out what is null
    return pd.concat([table.drop(columns=[c for c in columns if c in table]).assign(**absent), columns], axis=1)


@lru_cache(maxsize=65536)
def _apart(recipe_json: str) -> tuple[str, str, float, str]:
    listed = entries(recipe_json)
    settings = list(dict.fromkeys(setting_of(e) for e in listed))
    widths = {float(e["bits"]) for e in listed}
    line = "; ".join(str(e["target"]) for e in listed)
    parts = "+".join(dict.fromkeys(part_of(e) for e in listed))
    setting = settings[0] if len(settings) == 1 else ("mixed" if settings else "none")
    return setting, line or "none", widths.pop() if len(widths) == 1 else math.nan, parts


def entries(recipe_json: str) -> list[dict[str, Any]]:
    """A row's `recipe_json`: [{target, method, bits, …}]."""
    return list(json.loads(recipe_json))


def part_of(entry: Mapping[str, Any]) -> str:
    return str(entry["target"]).partition(":")[0].partition(".")[0]


def setting_of(entry: Mapping[str, Any]) -> str:
    """`rtn/channel`, `rtn/group32/sym`: the scheme without its width."""
    words = [str(entry["method"]), f"{entry.get('strategy', '')}{entry.get('group_size') or ''}"]
    words += ["sym"] if entry.get("symmetric") else []
    known = ("target", "bits", "method", "strategy", "group_size", "symmetric", "quantize_bias")
    words += [f"{k}={v}" for k, v in entry.items() if k not in known and not isinstance(v, (dict, list))]
    return "/".join(w for w in words if w)


def restricted(listed: Sequence[Mapping[str, Any]], parts: Sequence[str]) -> str:
    """The identity of a recipe cut down to some of its parts, for looking up the cell that has just these."""
    kept = [e for e in listed if part_of(e) in parts]
    return json.dumps(kept, sort_keys=True)


def by_recipe(cells: pd.DataFrame) -> dict[str, Any]:
    """{recipe identity: row label}."""
    return {json.dumps(entries(str(r)), sort_keys=True): i for i, r in cells["recipe_json"].items()}


def text_of(listed: Sequence[Mapping[str, Any]]) -> str:
    """A recipe for people: `vit:all:all=4`."""
    return "; ".join(f"{e['target']}={e['bits']}" for e in listed) or "the baseline"


def headline(cells: pd.DataFrame) -> pd.DataFrame:
    """Per setting and set of parts the line that touches most: whole parts where those were run."""
    touched = cells[cells["width"].notna() & (cells["parts"] != "")]
    if touched.empty:
        return touched
    size = touched.groupby(["setting", "parts", "line"])["params_touched"].max().reset_index()
    best = size.sort_values("params_touched").groupby(["setting", "parts"]).tail(1)
    keys = set(zip(best["setting"], best["line"], strict=True))
    return touched[[k in keys for k in zip(touched["setting"], touched["line"], strict=True)]]
