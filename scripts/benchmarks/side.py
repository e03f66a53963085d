"""A whole run of the version that lies beside it: reads a request as JSON, prints what the run found as a line of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blip2sweep.planning.plan import Plan
from blip2sweep.results.ledger import Ledger
from scripts.benchmarks.grids import grid
from scripts.benchmarks.ours import Setting, ours, planned
from scripts.benchmarks.stages import table
from scripts.benchmarks.told import predictions


def answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    """asked: `given`, the fields of a Setting; `grid`, `cells`, `workers`, `output_dir`, `stop`."""
    given, output_dir = (
        Setting(**{**asked["given"], "folder": Path(asked["given"]["folder"])}),
        Path(asked["output_dir"]),
    )
    plan = planned(given, grid(asked["grid"], asked["cells"]), output_dir)
    mine = {"cells": len(plan.cells), **ours(given, plan, output_dir, asked["workers"], asked["stop"])}
    found = {**mine, "stages": table(given, plan, mine), "said": said(plan, output_dir)}
    return {k: v for k, v in found.items() if k != "seen"}


def said(plan: Plan, output_dir: Path) -> dict[str, dict[str, Any]]:
    """{recipe: columns of its predictions}. Keys of cells may differ between versions, words for recipes do not."""
    attempts, found = Ledger(output_dir).refresh().attempts, {}
    for key, cell in plan.cells.items():
        result = attempts[key].result
        assert result is not None
        own = predictions(result, output_dir)
        found[str(cell.columns()["recipe"])] = {"id": own.id, "text": own.text, "nll_sum": own.nll_sum}
    return found


if __name__ == "__main__":
    print(json.dumps(answer(json.load(sys.stdin))))
