"""How fast the ledger is: status and roll-up of a large one, and what a cell costs besides its own work.

    python scripts/bench_ledger.py              # 100,000 cells of 4 samples; some minutes, most of them to make it
    python scripts/bench_ledger.py --cells 10000

Each figure is the wall time of a whole process. A full roll-up reads every journal and writes every table; what the workers
measured is in their journals, as it is after any sweep, and of a tenth of the cells it is also taken away, so that the roll-up
has to measure. On a busy machine trust ratios.
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

import numpy as np
import pandas as pd
import pyarrow as pa

from blip2sweep.files import read_json, seal, write_json
from blip2sweep.results.sample_parts import SHOWN, write_part
from blip2sweep.results.sample_rows import SCHEMA
from blip2sweep.results.samples import entry_name
from blip2sweep.results.scored import Scored

WORDS = ["-m", "backend=dummy", "task=shapes_vqa", "task.limit=4"]
GRID = [
    "part=all",
    "blocks=all,first,middle",
    "per_part.vit.bits=2,3,4,5,6,8,none",
    "per_part.llm.bits=2,3,4,5,6,8,none",
]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def blip2sweep(*words: str, cwd: Path) -> float:
    """Wall seconds of a command that must succeed."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "blip2sweep", *words],
        cwd=cwd,
        check=True,
        capture_output=True,
        env={**os.environ, **ONE_THREAD},
    )
    return time.perf_counter() - start


def seed(cwd: Path) -> list[dict[str, Any]]:
    """The journal lines of a real, small sweep: a baseline and a cell."""
    blip2sweep(*WORDS, "part=vit", "sweep_name=large", cwd=cwd)
    lines = [json.loads(x) for p in (cwd / "outputs" / "journals").iterdir() for x in p.read_text().splitlines()]
    return [line for line in lines if "key" in line]


def multiply(cwd: Path, lines: list[dict[str, Any]], cells: int, measured: bool) -> None:
    """Many cells from one, as 100 workers leave them: its lines in 100 journals, its files copied, its samples in 100 parts.
    Without `measured`: as after workers that were killed before they measured anything."""
    outputs = cwd / "outputs"
    cell = next(line["key"] for line in lines if line["event"] == "result" and line["columns"]["part"] == "vit")
    own = [line for line in lines if line["key"] == cell and (measured or line["event"] != "measured")]
    plain = [{k: v for k, v in line.items() if k not in ("n", "crc")} for line in own]
    texts = [json.dumps(line, separators=(",", ":"))[:-1] for line in plain]
    content = {
        p: (p.read_bytes(), p.stat().st_mtime_ns)
        for folder in ("predictions", "scores")
        for p in (outputs / folder).glob(f"{cell}-*")
    }
    name = next(p.stem for p in content)
    scored = Scored(outputs, name).scored
    rows = pd.read_parquet(outputs / SHOWN, filters=[("key", "=", cell)])
    keys = [f"{i:012x}" for i in range(cells)]
    for worker in range(100):
        mine = keys[worker::100]
        with (outputs / "journals" / f"many-{worker}.jsonl").open("wb") as journal:
            said = [text.replace(cell, key) for key in mine for text in texts]
            journal.writelines(seal(f'{text},"n":{i},'.encode()) + b"\n" for i, text in enumerate(said))
        for key in mine:
            for path, (data, when) in content.items():
                copy = path.with_name(path.name.replace(cell, key))
                copy.write_bytes(data)
                os.utime(copy, ns=(when, when))  # as the line says that they were written
        if measured and mine:
            part = pd.concat([rows] * len(mine)).assign(key=np.repeat(mine, len(rows)))
            names = [entry_name(name.replace(cell, key), scored) for key in mine]
            write_part(outputs, pa.Table.from_pandas(part, schema=SCHEMA, preserve_index=False), names)
    path = outputs / "sweeps" / "large" / "sweep.json"
    sweep = read_json(path)
    write_json(path, {**sweep, "keys": [*sweep["keys"], *keys]})


def large(cells: int) -> dict[str, float]:
    """Status and roll-up of a large ledger."""
    with tempfile.TemporaryDirectory() as folder:
        cwd = Path(folder)
        multiply(cwd, seed(cwd), cells, measured=True)
        figures = {
            f"status of a sweep of {cells} cells": blip2sweep("status", cwd=cwd),
            f"roll-up of {cells} cells, all new": blip2sweep("wait", cwd=cwd),
            f"roll-up of {cells} cells, nothing new": blip2sweep("wait", cwd=cwd),
        }
        check(cwd, cells)
        blip2sweep(*WORDS, "part=llm", "sweep_name=small", cwd=cwd)
        return figures | {"status of a sweep of 2 cells beside it": blip2sweep("status", "small", cwd=cwd)}


def unmeasured(cells: int) -> dict[str, float]:
    """Roll-up where the workers measured nothing."""
    with tempfile.TemporaryDirectory() as folder:
        cwd = Path(folder)
        multiply(cwd, seed(cwd), cells, measured=False)
        figures = {f"roll-up of {cells} cells that no worker measured": blip2sweep("wait", cwd=cwd)}
        check(cwd, cells)
        return figures


def check(cwd: Path, cells: int) -> None:
    """Every cell must be in the tables, with its drop and its samples."""
    outputs = cwd / "outputs"
    table, samples = pd.read_parquet(outputs / "table.parquet"), pd.read_parquet(outputs / SHOWN, columns=["key"])
    assert len(table) == cells + 2
    assert table["drop_vqa_accuracy_low"].notna().all()
    assert len(samples) == 4 * len(table)


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
    cells = parser.parse_args().cells
    for figures in (overhead(), large(cells), unmeasured(cells // 10)):
        for name, seconds in figures.items():
            print(f"{name:55} {seconds:8.3f} s", flush=True)


if __name__ == "__main__":
    main()
