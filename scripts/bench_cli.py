"""How long the command line takes: help, status, table, planning 10,000 cells, the card's sweep.

    python scripts/bench_cli.py            # about two minutes; prints a table
    python scripts/bench_cli.py --json

Each figure is the wall time of a whole process, the median of three (the sweep: one). On a busy machine trust ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GRID = [
    "part=all", "blocks=first,middle,last,first+last,all", "layers=all,mlp,attention",
    "per_part.vit.bits=1,2,3,4,5,6,7,8,none", "per_part.qformer.bits=1,2,3,4,5,6,7,8,none",
    "per_part.llm.bits=1,2,3,4,5,6,8,none",
]  # fmt: skip
PLAN = """
import sys, time
from tests.composing import jobs
from blip2sweep.results.ledger import Ledger
from blip2sweep.planning.plan import make_plan
from pathlib import Path
start = time.perf_counter()
plan = make_plan(jobs(*sys.argv[1:]), Ledger(Path("none")))
cells = [cell.job() for cell in plan.todo]
print(len(plan.jobs), len(cells), time.perf_counter() - start)
"""
ROOT = Path(__file__).resolve().parent.parent


def timed(*words: str, cwd: Path, repeat: int = 3) -> float:
    """Median wall seconds of `python -m blip2sweep …`."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "blip2sweep", *words], cwd=cwd, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def planning() -> tuple[int, int, float]:
    """(jobs, cells, seconds): expanding, resolving, keys and rows of a large grid, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", PLAN, *GRID], cwd=ROOT, check=True, capture_output=True, text=True)
    jobs, cells, seconds = done.stdout.split()
    return int(jobs), int(cells), float(seconds)


def measure() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        cwd = Path(folder)
        card = timed("-m", "quant.bits=2,4,8", "part=vit,llm,qformer", cwd=cwd, repeat=1)
        again = timed("-m", "quant.bits=2,4,8", "part=vit,llm,qformer", cwd=cwd, repeat=1)
        figures = {"card's sweep, first run": card, "the same command again": again}
        figures |= {f"blip2sweep {w}": timed(w, cwd=cwd) for w in ("--help", "status", "table")}
    jobs, cells, seconds = planning()
    return {**figures, f"planning {jobs} jobs, {cells} cells": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    figures = measure()
    if as_json:
        print(json.dumps(figures))
        return
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    for name, seconds in figures.items():
        print(f"{seconds:8.2f} s  {name}")


if __name__ == "__main__":
    main()
