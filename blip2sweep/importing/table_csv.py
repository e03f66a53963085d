"""`blip2sweep import csv FILE`: anybody's results as ledger rows, one line a cell.

Columns: what was done, either `recipe` (`vit:all:all=rtn4/channel; llm:0-3:mlp=rtn8/group32`) or `part` with `bits` and, as
wanted, `blocks`, `layers`, `method`, `strategy`, `group_size`; metrics under the table's names (`cider`, `vqa_accuracy`, …).
One line has `part` none (or an empty recipe): the baseline. Model, task and dtype are columns or options.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from blip2sweep.canonical import digest
from blip2sweep.errors import UserError, nearest
from blip2sweep.importing.models import model_anatomy
from blip2sweep.importing.rows import Recipes, Source, result, write_rows
from blip2sweep.metrics import METRICS
from blip2sweep.recipe import PartRecipe, Recipe
from blip2sweep.recipe.resolve import resolve_recipe
from blip2sweep.sweep.sweeps import Sweep

KNOWN = {"recipe", "part", "bits", "blocks", "layers", "method", "strategy", "group_size", "symmetric"}


def import_csv(path: Path, output_dir: Path, model: str, task: str, params: int | None = None) -> int:
    """Import a CSV file; importing again replaces it. Returns the number of cells. Raises UserError with the line."""
    frame = _read(path)
    anatomy = model_anatomy(model)
    total = params or sum(x.weights + x.out_features * x.bias for p in anatomy.parts.values() for x in p.linears)
    name = f"csv-{path.stem}"
    identity = {
        "dtype": "unknown",
        "task": task,
        "samples": 0,
        "data": digest([name, task])[:12],
        "generation": "unknown",
    }
    source = Source(str(path.name), model, anatomy, total, identity)
    metrics = [c for c in frame if c in METRICS]
    rows: dict[str, dict[str, Any]] = {}
    for line, record in enumerate(frame.to_dict("records"), start=2):
        recipe = _recipe(source, Recipes(anatomy), record, f"{path}, line {line}")
        values = {m: float(record[m]) for m in metrics if record[m] == record[m]}
        row = result(source, recipe, values, predictions=None)
        if row["key"] in rows:
            raise UserError(f"{path}, line {line}: the same recipe as an earlier line; right: one line a cell")
        rows[row["key"]] = row
    baseline = next(iter(rows.values()))["columns"]["baseline"]
    if baseline not in rows:
        raise UserError(
            f"{path}: no baseline line; right: a line with part none and the metrics of the untouched model"
        )
    sweep = Sweep(name, f"import csv {path.name}", time.time(), list(rows), [baseline])
    write_rows(output_dir, sweep, rows.values())
    return len(rows)


def _read(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(
            path, dtype={"recipe": str, "part": str, "blocks": str, "layers": str}, keep_default_na=True
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())}); right: a CSV file") from error
    if not {"recipe", "part"} & set(frame):
        raise UserError(
            f"{path}: no column recipe or part (found: {', '.join(map(str, frame))}); {nearest('part', [str(c) for c in frame])}"
        )
    metrics = [c for c in frame if c in METRICS]
    if not metrics:
        raise UserError(
            f"{path}: no metric column (found: {', '.join(map(str, frame))}); right: one of {', '.join(METRICS)}"
        )
    for name in metrics:
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    bad = frame.index[frame[metrics].isna().all(axis=1)]
    if frame.empty or len(bad):
        raise UserError(f"{path}, line {bad[0] + 2 if len(bad) else 2}: no metric is a number; right: a value a cell")
    return frame


def _recipe(source: Source, recipes: Recipes, record: Mapping[Any, Any], where: str) -> Recipe:
    given = {k: v for k, v in record.items() if k in KNOWN and v == v}
    if "recipe" in given and given["recipe"] not in ("", "none"):
        return recipes([_entry(text, where) for text in str(given["recipe"]).split(";")])
    if str(given.get("part", "none")) in ("none", ""):
        return Recipe({n: PartRecipe(p, (None,) * len(p.linears)) for n, p in source.anatomy.parts.items()})
    knobs = {k: _knob(given[k]) for k in ("bits", "method", "strategy", "group_size", "symmetric") if k in given}
    config = {"part": given["part"], "blocks": given.get("blocks", "all"), "layers": given.get("layers", "all"),
              "quant": {"method": "rtn", **knobs}}  # fmt: skip
    try:
        return resolve_recipe(config, source.anatomy)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _knob(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _entry(text: str, where: str) -> dict[str, Any]:
    """`vit:all:all=rtn4/channel` -> an entry; the inverse of the table's `recipe`."""
    import re

    found = re.fullmatch(r"\s*([^=\s]+)=([a-z_]+?)(\d+)/(channel|tensor|group)(\d*)(/sym)?\s*", text)
    if not found:
        raise UserError(f"{where}: '{text.strip()}' is no recipe; right: part:blocks:layers=method<bits>/strategy")
    target, method, bits, strategy, size, symmetric = found.groups()
    extra: dict[str, Any] = {"quantize_bias": True} if method == "minmax" else {"symmetric": bool(symmetric)}
    extra |= {"group_size": int(size)} if size else {}
    return {"target": target, "method": method, "bits": int(bits), "strategy": strategy, **extra}
