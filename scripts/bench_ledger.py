"""How fast the ledger is: status and roll-up of a large one, and what a cell costs besides its own work.

    python scripts/bench_ledger.py              # 100,000 cells of 4 samples; some minutes, most of them to make it
    python scripts/bench_ledger.py --cells 10000

Each figure is the wall time of a whole process. The first roll-up measures every cell; later ones read the ledger and
measure what is new. On a busy machine trust ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WORDS = ["-m", "task=shapes_vqa", "task.limit=4"]
GRID = [
    "part=all",
    "blocks=all,first,middle",
    "per_part.vit.bits=2,3,4,5,6,8,none",
    "per_part.llm.bits=2,3,4,5,6,8,none",
]
DUMMY = {"BLIP2SWEEP_RUNNER": "blip2sweep.sweep.dummy:Dummy", "OMP_NUM_THREADS": "1"}


def blip2sweep(*words: str, cwd: Path) -> float:
    """Wall seconds of a command that must succeed."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "blip2sweep", *words],
        cwd=cwd,
        check=True,
        capture_output=True,
        env={**os.environ, **DUMMY},
    )
    return time.perf_counter() - start


def seed(cwd: Path) -> list[dict[str, Any]]:
    """The journal lines of a real, small sweep: a baseline and a cell."""
    blip2sweep(*WORDS, "part=vit", "sweep_name=large", cwd=cwd)
    lines = [json.loads(x) for p in (cwd / "outputs" / "journals").iterdir() for x in p.read_text().splitlines()]
    return [line for line in lines if "key" in line]


def multiply(cwd: Path, lines: list[dict[str, Any]], cells: int) -> None:
    """Many cells from one: their lines in 100 journals, their files copied."""
    outputs = cwd / "outputs"
    cell = next(line["key"] for line in lines if line["event"] == "result" and line["columns"]["part"] == "vit")
    texts = [json.dumps(line, separators=(",", ":")) for line in lines if line["key"] == cell]
    files = [next((outputs / folder).glob(f"{cell}-*")) for folder in ("predictions", "scores")]
    content = {path: path.read_bytes() for path in files}
    keys = [f"{i:012x}" for i in range(cells)]
    for i, key in enumerate(keys):
        with (outputs / "journals" / f"many-{i % 100}.jsonl").open("a") as journal:
            journal.writelines(text.replace(cell, key) + "\n" for text in texts)
        for path in files:
            path.with_name(path.name.replace(cell, key)).write_bytes(content[path])
    path = outputs / "sweeps" / "large" / "sweep.json"
    sweep = json.loads(path.read_text())
    path.write_text(json.dumps({**sweep, "keys": [*sweep["keys"], *keys]}))


def large(cells: int) -> dict[str, float]:
    """Status and roll-up of a large ledger."""
    with tempfile.TemporaryDirectory() as folder:
        cwd = Path(folder)
        multiply(cwd, seed(cwd), cells)
        rollup = [f"roll-up of {cells} cells, {what}" for what in ("all new", "nothing new", "one new")]
        figures = {
            f"status of a sweep of {cells} cells": blip2sweep("status", cwd=cwd),
            rollup[0]: blip2sweep("wait", cwd=cwd),
            rollup[1]: blip2sweep("wait", cwd=cwd),
        }
        blip2sweep(*WORDS, "part=llm", "sweep_name=small", cwd=cwd)
        figures["status of a sweep of 2 cells beside it"] = blip2sweep("status", "small", cwd=cwd)
        return figures


def overhead() -> dict[str, float]:
    """Seconds between one cell's end and the next one's, of a worker whose cells do nothing: ledger, files, scoring."""
    with tempfile.TemporaryDirectory() as folder:
        cwd = Path(folder)
        blip2sweep(*WORDS, *GRID, cwd=cwd)
        lines = [json.loads(x) for p in (cwd / "outputs" / "journals").iterdir() for x in p.read_text().splitlines()]
        times = sorted(line["time"] for line in lines if line["event"] == "started")
        return {f"a cell beside its own work, mean of {len(times)}": (times[-1] - times[0]) / (len(times) - 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000)
    for name, seconds in {**overhead(), **large(parser.parse_args().cells)}.items():
        print(f"{name:50} {seconds:8.3f} s", flush=True)


if __name__ == "__main__":
    main()
