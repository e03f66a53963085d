"""`blip2sweep import csv FILE`: anybody's results as ledger rows, one line a cell.

Columns: what was done, either `recipe` (`vit:all:all=rtn4/channel; llm:0-3:mlp=rtn8/group32`) or `part` with `bits` and, as
wanted, `blocks`, `layers`, `method`, `strategy`, `group_size`; metrics under the table's names (`cider`, `vqa_accuracy`, …).
One line has `part` none (or an empty recipe): the baseline. `model`, `task`, `dtype` and `samples` are columns with one
value for the whole file, model and task also options. Columns that are not used are said.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from blip2sweep.canonical import digest
from blip2sweep.errors import UserError, nearest
from blip2sweep.importing.models import model_anatomy
from blip2sweep.importing.params import model_params
from blip2sweep.importing.rows import Recipes, Source, result, write_rows
from blip2sweep.methods import METHODS
from blip2sweep.metrics import METRICS
from blip2sweep.recipe import PartRecipe, Recipe
from blip2sweep.recipe.resolve import parse_target, resolve_recipe
from blip2sweep.sweep.sweeps import Sweep

KNOBS = ("bits", "method", "strategy", "group_size", "symmetric")
KNOWN = {"recipe", "part", "blocks", "layers", *KNOBS}
IDENTITY = {"model": "blip2-opt-2.7b", "task": "coco_caption", "dtype": "unknown", "samples": None}
TEXT = ("recipe", "part", "blocks", "layers", "model", "task", "dtype")


class Imported(NamedTuple):
    """What an import found: its number of cells, and the columns it has no use for."""

    cells: int
    unused: list[str]


def import_csv(
    path: Path, output_dir: Path, model: str | None = None, task: str | None = None, params: int | None = None
) -> Imported:
    """Import a CSV file; importing again replaces it. Raises UserError, one line, with the line of the file."""
    frame = _read(path)
    source = _source(path, frame, {"model": model, "task": task}, params)
    metrics, recipes = [c for c in frame if c in METRICS], Recipes(source.anatomy)
    rows: dict[str, dict[str, Any]] = {}
    for at, record in zip(frame.index, frame.to_dict("records"), strict=True):
        where = f"{path}, line {at + 2}"
        recipe = _recipe(source, recipes, record, where)
        values = {m: float(record[m]) for m in metrics if record[m] == record[m]}
        row = result(source, recipe, values, predictions=None)
        if row["key"] in rows:
            raise UserError(f"{where}: the same recipe as an earlier line; right: one line a cell")
        rows[row["key"]] = row
    baseline = next(iter(rows.values()))["columns"]["baseline"]
    if baseline not in rows:
        raise UserError(
            f"{path}: no baseline line; right: a line with part none and the metrics of the untouched model"
        )
    sweep = Sweep(f"csv-{path.stem}", f"import csv {path.name}", time.time(), list(rows), [baseline])
    write_rows(output_dir, sweep, rows.values())
    return Imported(len(rows), [str(c) for c in frame if c not in KNOWN and c not in METRICS and c not in IDENTITY])


def _source(path: Path, frame: pd.DataFrame, given: Mapping[str, str | None], params: int | None) -> Source:
    told = {name: _agreed(path, frame, name, given.get(name)) for name in IDENTITY}
    model, identity = str(told.pop("model")), {**told, "generation": "unknown"}
    identity["data"] = digest([f"csv-{path.stem}", told["task"]])[:12]
    identity["samples"] = _count(told["samples"], path)
    return Source(str(path.name), model, model_anatomy(model), model_params(model, params), identity)


def _count(text: str | None, path: Path) -> int | None:
    if text is not None and not re.fullmatch(r"\d+(\.0)?", text):
        raise UserError(f"{path}: column samples says {text}; right: a number")
    return None if text is None else int(float(text))


def _agreed(path: Path, frame: pd.DataFrame, name: str, given: str | None) -> Any:
    """The one value of a column, else the option, else the default; two that differ are refused."""
    values = list(dict.fromkeys(frame[name].dropna().astype(str))) if name in frame else []
    if len(values) > 1:
        raise UserError(
            f"{path}: column {name} has {len(values)} values ({', '.join(values[:4])}), which are not compared; "
            f"right: a file for each"
        )
    if values and given and values[0] != given:
        raise UserError(f"{path}: column {name} says {values[0]}, --{name} {given}; right: only one of them")
    return values[0] if values else given or IDENTITY[name]


def _read(path: Path) -> pd.DataFrame:
    """The lines of the file; the index is their place, so that line numbers stay right where lines are empty."""
    try:
        frame = pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), skip_blank_lines=False).dropna(how="all")
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
        return recipes([_entry(text, source, where) for text in str(given["recipe"]).split(";")])
    if str(given.get("part", "none")) in ("none", ""):
        return Recipe({n: PartRecipe(p, (None,) * len(p.linears)) for n, p in source.anatomy.parts.items()})
    knobs = {k: _knob(given[k]) for k in KNOBS if k in given}
    config = {"part": given["part"], "blocks": given.get("blocks", "all"), "layers": given.get("layers", "all"),
              "quant": {"method": "rtn", **knobs}}  # fmt: skip
    try:
        return resolve_recipe(config, source.anatomy)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _knob(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _entry(text: str, source: Source, where: str) -> dict[str, Any]:
    """`vit:all:all=rtn4/channel` -> an entry; the inverse of the table's `recipe`."""
    found = re.fullmatch(r"\s*([^=\s]+)=([a-z_]+?)(\d+)/(channel|tensor|group)(\d*)(/sym)?\s*", text)
    if not found:
        raise UserError(f"{where}: '{text.strip()}' is no recipe; right: part:blocks:layers=method<bits>/strategy")
    target, method, bits, strategy, size, symmetric = found.groups()
    name, blocks, layers = parse_target(target, where)
    source.anatomy.check_part(name, where)
    source.anatomy.mask(name, blocks, layers, where)
    if method not in METHODS:
        raise UserError(f"{where}: method '{method}'; {nearest(method, list(METHODS))}")
    if not METHODS[method].has_bits(int(bits)) or strategy not in METHODS[method].strategies:
        raise UserError(f"{where}: {method} has no {bits} bits/{strategy}; right: a width and a strategy of the method")
    extra: dict[str, Any] = {"quantize_bias": True} if method == "minmax" else {"symmetric": bool(symmetric)}
    extra |= {"group_size": int(size)} if size else {}
    return {"target": f"{name}:{blocks}:{layers}", "method": method, "bits": int(bits), "strategy": strategy, **extra}
