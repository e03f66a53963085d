"""What golden.json holds, made anew: plans, and one small sweep, all in this process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.golden import Plan, ends, facts, plan, sha, sweep, t5_model
from tests.golden.cells import PLANNED, PLANNED_T5, RECIPE, RUN, RUN_T5

FILE = Path(__file__).with_name("golden.json")
Frozen = dict[str, Any]
LIMIT = "task.limit=24"
SWEEP = "golden"
SHOWN = 3  # cells of one name up to which each is held field by field; of more, as a digest
# Columns of a row that say when, where and how fast it ran.
OF_THE_RUN = re.compile(
    r"(seconds|hits|peak)(_.*)?|.*_per_second|host|finished|device|threads|cpu.*|versions|code|.*batch_size|oom_halvings|"
    r"attention|image_processor|layers_written"
)
MISSING = "(not there)"
OF_WEIGHTS = ("key", "weights", "baseline")


def frozen(folder: Path) -> Frozen:
    """Everything, from an empty folder."""
    t5 = t5_model(folder / "t5")
    found, plans = ran(folder, t5)
    every = plans | planned(folder, t5)
    columns = {c for made in every.values() for cell in made["cells"] for c in cell["columns"] if "identity" in cell}
    return {"planned": every, "columns": sorted(_known() or columns), **found}


# ---- plans


def planned(folder: Path, t5: Frozen) -> Frozen:
    """{name: what is frozen of its cells}, of those that are planned alone."""
    path = folder / "recipe.yaml"
    path.write_text(RECIPE)
    told = f"recipe_file={path}"
    plans = {n: plan([*(told if w == "recipe_file" else w for w in words), LIMIT]) for n, words in PLANNED.items()}
    found = {n: _frozen_plan(p, fixed=False) for n, p in plans.items()}
    of_t5 = {n: plan([*words, LIMIT], t5) for n, words in PLANNED_T5.items()}
    return found | {n: _frozen_plan(p, fixed=True) for n, p in of_t5.items()}


def _frozen_plan(made: Plan, fixed: bool) -> Frozen:
    cells = [facts(made.cells[k], fixed) for k in dict.fromkeys(made.keys) if k]
    told = {"jobs": len(made.keys), "baselines": len(made.baselines), "skipped": list(made.reasons.values())}
    return {**told, "cells": cells if len(cells) <= SHOWN else [_digests(c) for c in cells]}


def _known() -> set[str]:
    """The columns that digests are made of: those there were when they were frozen, so that a new one changes none."""
    return set(json.loads(FILE.read_text()).get("columns", ())) if FILE.exists() else set()


def _digests(cell: Frozen) -> Frozen:
    known = _known() or set(cell["columns"])
    short = {f: cell["columns"][f] for f in ("recipe", "layers_touched", "model_bytes")}
    kept = {f: cell[f] for f in ("key", "recipe_hash", "identity_sha256")}
    return {
        **kept,
        "chain": sha(cell["chain"]),
        "job": sha(cell["job"]),
        "columns": sha({c: v for c, v in cell["columns"].items() if c in known}),
        **short,
    }


# ---- one small sweep


def ran(folder: Path, t5: Frozen) -> tuple[Frozen, Frozen]:
    """(rows of RUN and RUN_T5 and of their baselines, what they were computed on, names on disk; {name: of its plan})."""
    output_dir = folder / "outputs"
    own = [LIMIT, f"output_dir={output_dir}", f"sweep_name={SWEEP}"]
    made = sweep([*(([*w, *own], None) for w in RUN.values()), *(([*w, *own], t5) for w in RUN_T5.values())])
    keys = dict(zip((*RUN, *RUN_T5), map(str, made.keys), strict=True))
    rows = pd.read_parquet(output_dir / "sweeps" / SWEEP / "table.parquet").set_index("key", drop=False)
    named = {str(rows.loc[k, "baseline"]): f"baseline of {n}" for n, k in reversed(keys.items())}
    named |= {k: n for n, k in keys.items()}
    ends(made.cells[keys["rtn8"]], folder / "ends")
    return {
        "processor": " ".join(str(rows.iloc[0][c]) for c in ("cpu", "cpu_capability", "versions")),
        "rows": {n: _row(rows.loc[k], output_dir, fixed=n.split("of ")[-1] in RUN_T5) for k, n in named.items()},
        "disk": {**_on_disk(output_dir, rows), "lines": _lines(folder)},
    }, {n: {"cells": [facts(made.cells[k], n in RUN_T5)]} for n, k in keys.items()}


def _row(row: Any, output_dir: Path, fixed: bool) -> Frozen:
    """The row as the table has it, and the sha256 of what was said without likelihoods: `predictions` is that of all."""
    said = json.loads(next((output_dir / "predictions").glob(f"{row['key']}-*.json")).read_text())
    known = ((str(c), v.tolist() if isinstance(v, np.generic | np.ndarray) else v) for c, v in row.items())
    columns = {c: v for c, v in known if isinstance(v, list) or pd.notna(v)}
    kept = {c: v for c, v in columns.items() if not OF_THE_RUN.fullmatch(c) and not (fixed and c in OF_WEIGHTS)}
    return {"texts": sha([said[f] for f in ("id", "image_id", "text", "tokens", "nll_tokens")]), **kept}


# ---- names on disk


def _on_disk(output_dir: Path, rows: pd.DataFrame) -> Frozen:
    """Fields, columns and files that later versions and other programs look for."""
    samples = pd.read_parquet(output_dir / "samples.parquet")
    predictions = next((output_dir / "predictions").iterdir())
    scores = {n for p in (output_dir / "scores").iterdir() for n in np.load(p).files}
    return {
        "files": sorted({_generic(p.relative_to(output_dir)) for p in output_dir.rglob("*") if p.is_file()}),
        "table": [c for c in rows if c != "code"],  # which only a checkout has
        "table_types": sorted(f"{c} {t}" for c, t in rows.dtypes.items() if not OF_THE_RUN.fullmatch(str(c))),
        "samples": list(samples),
        "predictions": list(json.loads(predictions.read_text())),
        "scores": sorted(scores),
        "sweep.json": sorted(set(_fields(json.loads((output_dir / "sweeps" / SWEEP / "sweep.json").read_text())))),
        "pack": sorted(set(_fields(json.loads(next(output_dir.rglob("packs/*.json")).read_text()), deep=False))),
    }


def _generic(path: Path) -> str:
    """A name without what is this run's own."""
    text = re.sub(r"[0-9a-f]{12,64}", "HASH", str(path))
    text = re.sub(r"\b[\w-]+-\d+-[0-9a-f]{8}\b", "HOST-PID-ID", text)
    return re.sub(r"\b[0-9a-f]{8}\b", "ID", text)


def _lines(folder: Path) -> dict[str, list[str]]:
    """{event: the fields of its lines}, those of `columns` left out: the table shows them."""
    found: dict[str, set[str]] = {}
    for path in folder.glob("*/journals/*.jsonl"):
        for line in map(json.loads, path.read_text().splitlines()):
            told = {k: v for k, v in line.items() if k not in ("columns", "metrics")}
            found.setdefault(line["event"], set()).update(line, _fields(told))
    return {event: sorted(names - {"code"}) for event, names in sorted(found.items())}


def _fields(data: Mapping[str, Any], deep: bool = True) -> Iterator[str]:
    """Names of fields, dotted; of the first of a list's entries."""
    for name, value in data.items():
        yield name
        inner: Any = value[0] if isinstance(value, list) and value else value
        if deep and isinstance(inner, Mapping):
            yield from (f"{name}.{n}" for n in _fields(inner))


def differences(expected: Any, found: Any, where: str = "", exact: bool = True) -> Iterator[str]:
    """Where two frozen things differ, by name."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in dict.fromkeys([*expected, *found]):
            inner = f"{where}: {name}" if where else str(name)
            yield from differences(expected.get(name, MISSING), found.get(name, MISSING), inner, exact)
    elif _are_names(expected) and _are_names(found) and sorted(expected) != sorted(found):
        yield from (f"{where}: was {n!r}, is {MISSING!r}" for n in expected if n not in found)
        yield from (f"{where}: was {MISSING!r}, is {n!r}" for n in found if n not in expected)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for i, (a, b) in enumerate(zip(expected, found, strict=True)):
            yield from differences(a, b, f"{where}[{i}]", exact)
    elif not _same(expected, found, where.rpartition(": ")[2], exact):
        yield f"{where}: was {expected!r}, is {found!r}"


def _are_names(data: Any) -> bool:
    return isinstance(data, list) and all(isinstance(n, str) for n in data) and len(set(data)) == len(data)


def _same(a: Any, b: Any, field: str, exact: bool) -> bool:
    """Numbers of likelihoods, and the hash that covers them, are those of one kind of processor."""
    if not exact and field == "predictions":
        return True
    if isinstance(a, float) and isinstance(b, float | int):
        loose = not exact and "nll" in field
        return abs(a - b) <= (1e-4 if loose else 1e-12) * max(abs(a), 1.0 if loose else abs(b))
    return bool(a == b) or (not exact and field == "changed_nll")
