"""How fast the ledger is: status and roll-up of a large one, and what a cell costs besides its own work.

    python scripts/bench_ledger.py              # 100,000 cells of 4 samples; some minutes, most of them to make it
    python scripts/bench_ledger.py --cells 10000

Each figure is the wall time, the processor time and the peak memory of a whole process. A full roll-up reads every journal and
writes every table; what the workers measured is in their journals, as it is after any sweep, and of a tenth of the cells it is
also taken away, so that the roll-up has to measure. On a busy machine trust ratios of processor time.

At last, what it reads and takes to append the samples of one cell to none, and to a million rows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from blip2sweep.canonical import canonical_json
from blip2sweep.files import read_json, seal, write_json
from blip2sweep.results.sample_parts import SHOWN, write_part
from blip2sweep.results.sample_rows import SCHEMA
from blip2sweep.results.samples import contents, entry_name, publish
from blip2sweep.results.scored import Scored

WORDS = ["-m", "backend=dummy", "task=shapes_vqa", "task.limit=4"]
GRID = [
    "part=all",
    "blocks=all,first,middle",
    "per_part.vit.bits=2,3,4,5,6,8,none",
    "per_part.llm.bits=2,3,4,5,6,8,none",
]
NUMBERS = ("bits_per_weight", "bits_per_weight_touched", "compression_ratio")  # of a result, which differ between cells
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


class Spent(NamedTuple):
    """What a process took: seconds of wall clock and of processors, and its peak memory in MB."""

    wall: float
    cpu: float
    memory: float

    def __str__(self) -> str:
        return f"{self.wall:8.3f} s  {self.cpu:8.3f} s  {self.memory:6.0f} MB"


def blip2sweep(*words: str, cwd: Path) -> Spent:
    """What a command takes that must succeed."""
    start, command = time.perf_counter(), [sys.executable, "-m", "blip2sweep", *words]
    with (cwd / "said").open("wb") as said:
        process = subprocess.Popen(command, cwd=cwd, stdout=said, stderr=said, env={**os.environ, **ONE_THREAD})
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{shlex.join(words)}: {(cwd / 'said').read_text()}")
    return Spent(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


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
            said = [as_another(line, cell, key) for key in mine for line in plain]
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


def as_another(line: Mapping[str, Any], cell: str, key: str) -> str:
    """The JSON of a line of another cell, without its end: with a recipe and numbers of its own, as real cells have."""
    draw = random.Random(f"{line['event']} {key}")
    found = dict(line, time=line["time"] + 1000 * draw.random())
    if line["event"] == "result":
        blocks, bits = "+".join(map(str, sorted(draw.sample(range(39), 6)))), draw.randint(2, 8)
        recipe = json.loads(line["columns"]["recipe_json"])
        told = [{**entry, "bits": bits, "target": f"vit:{blocks}:all"} for entry in recipe]
        own = {"recipe": f"vit:{blocks}:all=rtn{bits}/channel", "blocks": blocks, "recipe_json": canonical_json(told)}
        found["columns"] = {**line["columns"], **own, "bits_vit": float(bits), "bits_vision": float(bits),
                            **{n: line["columns"][n] * draw.uniform(0.3, 1) for n in NUMBERS}}  # fmt: skip
        found["cost"] = {n: v * draw.uniform(0.5, 2) if isinstance(v, float) else v for n, v in line["cost"].items()}
    elif line["event"] == "measured":
        for group in ("metrics", "retained"):
            found[group] = {m: [other(v, draw) for v in values] for m, values in line[group].items()}
    return json.dumps(found, separators=(",", ":"))[:-1].replace(cell, key)


def other(value: float | None, draw: random.Random) -> float | None:
    """Another number of the same type."""
    return draw.random() if isinstance(value, float) else draw.randint(0, 2) if isinstance(value, int) else value


def large(cells: int) -> Mapping[str, object]:
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


def unmeasured(cells: int) -> Mapping[str, object]:
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


def overhead() -> Mapping[str, object]:
    """Seconds between one cell's end and the next one's, of a worker whose cells do nothing: ledger, files, scoring."""
    with tempfile.TemporaryDirectory() as folder:
        cwd = Path(folder)
        blip2sweep(*WORDS, *GRID, cwd=cwd)
        lines = [json.loads(x) for p in (cwd / "outputs" / "journals").iterdir() for x in p.read_text().splitlines()]
        times = sorted(line["time"] for line in lines if line["event"] == "started")
        mean = (times[-1] - times[0]) / (len(times) - 1)
        return {f"a cell beside its own work, mean of {len(times)}": f"{mean:8.3f} s"}


# ---- samples

CELLS, SAMPLES = 400, 500  # of a part


def sample_rows(keys: list[str]) -> pa.Table:
    """Rows of cells, whose texts do not compress."""
    n = len(keys) * SAMPLES
    letters = np.random.default_rng(0).bytes(20 * n).hex()
    ids = np.tile(np.arange(SAMPLES), len(keys))
    texts = [letters[40 * i : 40 * i + 40] for i in range(n)]
    found = {"key": np.repeat(keys, SAMPLES), "id": ids, "image_id": ids, "text": texts}
    columns = [pa.array(found[f.name], f.type) if f.name in found else pa.nulls(n, f.type) for f in SCHEMA]
    return pa.table(columns, schema=SCHEMA)


def add_part(output_dir: Path, entries: dict[str, str], cells: int) -> None:
    """Write the samples of more cells, as a scoring process does."""
    keys = [f"{len(entries) + i:012x}" for i in range(cells)]
    names = [entry_name(f"{key}-{key}", "0" * 8) for key in keys]
    write_part(output_dir, sample_rows(keys), names)
    entries.update(zip(keys, names, strict=True))


def appended(rows: int) -> Mapping[str, object]:
    """What it takes to append the samples of one cell to so many rows, and to publish them."""
    with tempfile.TemporaryDirectory() as folder:
        output_dir, entries = Path(folder), dict[str, str]()
        while len(entries) * SAMPLES < rows:
            add_part(output_dir, entries, CELLS)
        publish(output_dir, entries)
        there = sum(path.stat().st_size for path in output_dir.rglob("*.parquet"))
        read, start = bytes_read(), time.process_time()
        contents(output_dir)
        add_part(output_dir, entries, 1)
        publish(output_dir, entries)
        spent = f"{time.process_time() - start:8.3f} s, reads {(bytes_read() - read) / 1e6:.1f} of {there / 1e6:.1f} MB"
        return {f"{SAMPLES} samples appended to {rows} rows": spent}


def bytes_read() -> int:
    """How many bytes this process has read so far, from files or from memory of the system."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000)
    cells = parser.parse_args().cells
    parts = (
        overhead,
        lambda: large(cells),
        lambda: unmeasured(cells // 10),
        lambda: appended(0),
        lambda: appended(10**6),
    )
    for part in parts:
        for name, spent in part().items():
            print(f"{name:55} {spent}", flush=True)


if __name__ == "__main__":
    main()
