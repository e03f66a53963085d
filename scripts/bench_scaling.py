"""How cost grows with cells, images and workers, on the tiny model; about 5 minutes on two cores.

    python scripts/bench_scaling.py [--json] [--only cells|images|workers]

A row is one run of worker processes, from their start to their last score. `bound by` names what took most of a worker's
time: its start, a stage, `between cells` (ledger and journal), or scores that were still missing at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout, installed or not

from scripts.benchmarks.grids import grid
from scripts.benchmarks.ours import ours, planned, setting
from scripts.benchmarks.report import machine, stages

# (what grows, grid, cells asked for, images, workers). Some of the published grid's configs are the same cell: 1056 make 998 and the baseline.
RUNS = [
    ("cells", "seed_grid", 10, 8, 1),
    ("cells", "seed_grid", 100, 8, 1),
    ("cells", "seed_grid", 1056, 8, 1),
    ("images", "card", None, 50, 1),
    ("images", "card", None, 100, 1),
    ("images", "card", None, 250, 1),
    ("images", "card", None, 500, 1),
    ("workers", "part_wise", None, 250, 1),
    ("workers", "part_wise", None, 250, 2),
]
COLUMNS = ("grows", "grid", "cells", "images", "workers", "planned in s", "seconds", "seconds a cell", "bound by")


def row(grows: str, name: str, cells: int | None, images: int, workers: int) -> dict[str, Any]:
    """One run."""
    with tempfile.TemporaryDirectory(prefix="blip2sweep-scaling-") as folder:
        given = setting(argparse.Namespace(model="tiny", task="caption", images=images, nll=1), Path(folder))
        start = time.perf_counter()
        plan = planned(given, grid(name, cells), Path(folder) / "outputs")
        seconds_planned = time.perf_counter() - start
        mine = ours(given, plan, Path(folder) / "outputs", workers)
    return {
        "grows": grows, "grid": name, "cells": len(plan.cells), "images": images, "workers": mine["workers"],
        "planned in s": round(seconds_planned, 2), "seconds": round(mine["seconds"], 1),
        "seconds a cell": round(mine["seconds"] / len(plan.cells), 3), "spent": spent(mine),
    }  # fmt: skip


def spent(mine: dict[str, Any]) -> dict[str, float]:
    """Seconds of a worker by what they went to, the largest first; together they are the whole run."""
    found = {k: v / mine["workers"] for k, v in stages(mine).items()}
    found["rest of cells"] = mine["in_cells"] / mine["workers"] - sum(found.values())
    found |= {"start": mine["before_first_cell"], "last scores": mine["after_last_cell"]}
    found["between cells"] = mine["seconds"] - sum(found.values())
    return {k: round(v, 2) for k, v in sorted(found.items(), key=lambda item: -item[1])}


def lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A Markdown table."""
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|" + "---|" * len(COLUMNS)
    for one in rows:
        largest = ", ".join(f"{k} {100 * v / one['seconds']:.0f} %" for k, v in list(one["spent"].items())[:4])
        yield "| " + " | ".join(str({**one, "bound by": largest}[c]) for c in COLUMNS) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("cells", "images", "workers"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    before = machine("cpu")
    rows = [row(*run) for run in RUNS if args.only in (None, run[0])]
    if args.json:
        print(json.dumps({"machine": before, "rows": rows}))
    else:
        print(before, *lines(rows), sep="\n")


if __name__ == "__main__":
    main()
