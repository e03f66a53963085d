"""The card's drop-off, by blip2sweep itself: three sweeps of parts and bits, one of thirds, read back from its table."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

GRIDS = {
    "tensor": ["quant=minmax"],
    "channel": ["quant=rtn"],
    "group": ["quant=rtn", "quant.strategy=group", "quant.group_size=32"],
}
PARTS, BITS = ("vision", "connector", "language", "all"), (8, 5, 4, 3, 2)
WHOLE = [f"part={','.join(PARTS)}", f"quant.bits={','.join(map(str, BITS))}", "task=shapes_caption,shapes_vqa"]
THIRDS = ["part=vision,language", "blocks=first,middle,last", "quant=minmax", "quant.bits=4", "task=shapes_caption"]
METRICS = {"shapes_caption": ("cider", "cider"), "shapes_vqa": ("vqa", "vqa_accuracy")}


def commands() -> list[list[str]]:
    """What is typed behind `python -m blip2sweep -m model=tiny-llava`."""
    return [*([*WHOLE, *quant] for quant in GRIDS.values()), THIRDS]


def run(folder: Path, out: Path, workers: int) -> pd.DataFrame:
    """Sweep the model in `folder` into `out`, where finished cells are kept, and read the table of all cells."""
    typed = [sys.executable, "-m", "blip2sweep", "-m", "model=tiny-llava", f"model.path={folder.resolve()}"]
    for overrides in commands():
        subprocess.run([*typed, *overrides, f"output_dir={out}", f"hydra.launcher.workers={workers}"], check=True)
    return pd.read_parquet(out / "table.parquet")


def _loss(row: pd.Series, metric: str) -> list[float]:
    """Loss in per cent of the baseline, with its interval."""
    ends = [row[f"drop_{metric}{end}"] for end in ("", "_low", "_high")]
    return [100 * float(value) / float(row[f"baseline_{metric}"]) for value in ends]


def cells(table: pd.DataFrame) -> Iterator[dict]:
    """The rows as the card's tables want them, in the order of the grids."""
    table = table[table["part"] != "none"]
    keys = ["part", "bits", "strategy", "third"]
    named = table.assign(bits=table[[f"bits_{part}" for part in PARTS[:-1]]].max(axis=1), third=table["blocks"])
    found: dict[tuple, dict] = {}
    for _, row in named.iterrows():
        name, metric = METRICS[row["task"]]
        cell = found.setdefault(tuple(row[keys]), dict(zip(keys, row[keys], strict=True)))
        cell[name] = _loss(row, metric)
    yield from sorted(
        found.values(), key=lambda c: (PARTS.index(c["part"]), list(GRIDS).index(c["strategy"]), -c["bits"])
    )
