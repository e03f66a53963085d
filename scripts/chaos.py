"""Chaos: a thousand cheap cells, workers killed at random until one cell in ten has died once; then every row is counted.

    python scripts/chaos.py                    # on this machine, four workers
    python scripts/chaos.py --slurm            # on a Slurm, such as that of scripts/slurm_dev.sh
    python scripts/chaos.py --cells 200 --seconds 0.1

The cells need no model (blip2sweep/backends/dummy.py); everything around them is what a real sweep uses. SIGKILL may meet a
worker a moment later than it was aimed, in a cell that has died before and is then given up: `blip2sweep retry` runs
those again, as a user would, and how often that was needed is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import pandas as pd

from blip2sweep.results.committed import predictions_name
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.predictions import read_predictions

TASK = ["backend=dummy", "task=shapes_vqa", "task.limit=4", "sweep_name=chaos"]
LOCAL = ["hydra.launcher.workers=4"]
SLURM = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1", "hydra.launcher.max_packs=16",
         "hydra.launcher.pack_minutes=0.2"]  # fmt: skip


def grid(cells: int) -> list[str]:
    """Overrides of five cells times 25 times what is asked for."""
    llm = max(1, min(9, round(cells / 125)))
    bits = ",".join([*map(str, range(1, llm)), "none"] if llm > 1 else ["2"])
    return ["part=all", "blocks=all,first,middle,last,first+last", "per_part.vit.bits=2,3,4,5,6",
            "per_part.qformer.bits=2,3,4,5,6", f"per_part.llm.bits={bits}"]  # fmt: skip


class Chaos:
    """Kills workers that have a cell in hand, each cell at most once on purpose."""

    def __init__(self, outputs: Path, share: float, seed: int) -> None:
        self.ledger, self.share, self.random = Ledger(outputs), share, random.Random(seed)
        self.killed: set[str] = set()

    def strike(self, cells: int) -> None:
        """Kill one worker, at random, unless enough cells have died."""
        attempts = self.ledger.refresh().attempts
        living = [s for a in attempts.values() if not a.done for s in a.open if s["key"] not in self.killed]
        if living and len(self.killed) < self.share * cells:
            start = self.random.choice(living)
            try:
                os.kill(start["pid"], signal.SIGKILL)
                self.killed.add(start["key"])
            except ProcessLookupError:
                pass


def run(folder: Path, words: list[str], chaos: Chaos, cells: int, env: dict[str, str]) -> int:
    """The sweep under fire; then `retry` until nothing is missing. Returns how many retries that took."""
    with (folder / "said").open("w") as said:
        command = [sys.executable, "-m", "blip2sweep"]
        sweep = subprocess.Popen([*command, "-m", *words], cwd=folder, env=env, stdout=said, stderr=said)
        while sweep.poll() is None:
            chaos.strike(cells)
            time.sleep(chaos.random.uniform(0.02, 0.3))
        for retries in range(5):
            if sweep.returncode == 0:
                return retries
            sweep = subprocess.Popen([*command, "retry", "--wait"], cwd=folder, env=env, stdout=said, stderr=said)
            sweep.wait()
    raise SystemExit((folder / "said").read_text()[-2000:])


def report(outputs: Path, chaos: Chaos, retries: int, wall: float) -> dict[str, float]:
    """Counts, after checking that every row is whole."""
    table, ledger = pd.read_parquet(outputs / "sweeps" / "chaos" / "table.parquet"), Ledger(outputs).refresh()
    valid = bool(table["key"].is_unique and (table["status"] == "done").all() and table["vqa_accuracy"].notna().all())
    for result in ledger.results():
        name = predictions_name(result)
        valid &= read_predictions(outputs, name).hash == result["predictions"]
    attempts = sum(a.started for a in ledger.attempts.values())
    useful = sum(cast("float", r["cost"]["seconds"]) for r in ledger.results())
    wasted = sum(wasted_seconds(ledger))
    return {
        "valid rows": len(table) if valid else 0, "rows": len(table), "attempts": attempts, "cells that died once or more": len(chaos.killed),
        "results": sum(len(a.results) for a in ledger.attempts.values()), "retries": retries,
        "orphan files": len(list(outputs.rglob("*.tmp"))), "useful seconds": round(useful, 1),
        "wasted seconds": round(wasted, 1), "wall seconds": round(wall, 1),
    }  # fmt: skip


def wasted_seconds(ledger: Ledger) -> list[float]:
    """From start to death of every attempt that died."""
    starts = {k: s for a in ledger.attempts.values() for k, s in a.starts.items()}
    failures = [f for a in ledger.attempts.values() for f in a.failures]
    return [f["time"] - starts[f["attempt"]]["time"] for f in failures if f["attempt"] in starts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each cell's own work")
    parser.add_argument("--share", type=float, default=0.1, help="of the cells that are to die once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slurm", action="store_true")
    asked = parser.parse_args()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "BLIP2SWEEP_DUMMY": json.dumps({"seconds": asked.seconds})}
    with tempfile.TemporaryDirectory() as folder:
        start, chaos = time.monotonic(), Chaos(Path(folder) / "outputs", asked.share, asked.seed)
        words = [*TASK, *grid(asked.cells), *(SLURM if asked.slurm else LOCAL)]
        retries = run(Path(folder), words, chaos, asked.cells, env)
        figures = report(Path(folder) / "outputs", chaos, retries, time.monotonic() - start)
    for name, value in figures.items():
        print(f"{name:32} {value}")
    whole = figures["valid rows"] == figures["rows"] >= asked.cells and figures["orphan files"] == 0
    sys.exit(0 if whole and len(chaos.killed) >= asked.share * asked.cells else 1)


if __name__ == "__main__":
    main()
