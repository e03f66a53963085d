"""Planted folders whose cells have further steps: dropped blocks, recovery and controls, and measured influence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from blip2sweep.analysis.recipes import entries
from blip2sweep.analysis.steps import RECOVER, before_recovery, of_kind
from tests.synthetic import Entry, build, entry, whole

# Planted shares of the baseline that each block costs alone; together they cost more than their sum.
ALONE = {
    "vit": [0.3, 0.05, 0.02, 0.01, 0.03, 0.2], "qformer": [0.01, 0.0, 0.02, 0.01, 0.4, 0.1], "llm": [0.5, 0.7, 0.3, 0.45, 0.02, 0.12],
}  # fmt: skip
INFLUENCES = {
    "vit": [0.101, 0.018, 0.012, 0.026, 0.065, 0.151], "qformer": [0.119, 0.026, 0.115, 0.041, 0.266, 0.092],
    "llm": [0.219, 0.214, 0.075, 0.084, 0.047, 0.078],
}  # fmt: skip
TOGETHER = 1.4  # times the sum


def dropped(target: str) -> Entry:
    """The entry that leaves blocks out, such as `llm:4-5`."""
    return {"step": "drop_blocks", "target": f"{target}:all"}


def recovered(target: str, steps: int = 150, **more: object) -> Entry:
    """The entry of a recovery."""
    spec = {"method": "lora", "loss": "task", "learning_rate": 0.002, "batch_size": 32, "seed": 0, "holdout": 0.125, "processes": 1,
            "rank": 8, "alpha": 16.0, "merged": False}  # fmt: skip
    return {"step": "recover", "target": target, "steps": steps, **spec, **more}


def lost(listed: Sequence[Entry]) -> float:
    """The planted share that is lost: of blocks and bits as planted, of which a recovery gives most back."""
    whole_loss = sum(map(_loss, (e for e in listed if e.get("step") != "recover")))
    blocks = sum(len(_blocks(e)) for e in listed if e.get("step") == "drop_blocks")
    share = min(0.97, whole_loss * (TOGETHER if blocks > 1 else 1))
    steps = sum(int(e["steps"]) for e in listed if e.get("step") == "recover")
    return share * 0.25 - 0.03 if steps >= 150 else share * 0.5 if steps else share


def _loss(e: Entry) -> float:
    part = str(e["target"]).split(":")[0]
    if e.get("step") == "drop_blocks":
        return sum(ALONE[part][i] for i in _blocks(e))
    return {8: 0.005, 4: 0.03, 3: 0.2, 2: 0.8}[int(e["bits"])] * (0.3 if str(e["target"]).split(":")[1] != "all" else 1)


def _blocks(e: Entry) -> range:
    first, _, last = str(e["target"]).split(":")[1].partition("-")
    return range(int(first), int(last or first) + 1)


def recipes() -> list[list[Entry]]:
    """Single drops, sets, bits, both, and recoveries of some with their control."""
    parts = ("vit", "qformer", "llm")
    cells = [[dropped(f"{p}:{i}")] for p in parts for i in range(6)]
    cells += [[dropped(t)] for t in ("qformer:4-5", "llm:4-5", "vit:2-3", "llm:3-4")]
    cells += [[dropped("qformer:4-5"), dropped("llm:4-5")]]
    cells += [whole(parts, b) for b in (8, 4, 3)] + [[entry(f"{p}:{i}:all", 3)] for p in parts for i in range(6)]
    cells += [[dropped("llm:4-5"), *whole(parts[:2], 4), entry("llm:all:all", 4)]]
    for steps in (50, 150, 500):
        cells += [[*before, recovered("qformer:all:all", steps)] for before in ([], [dropped("llm:4-5")])]
        cells += [[dropped("qformer:4-5"), recovered("llm:all:all", steps)], [recovered("llm:all:all", steps)]]
    return cells


def build_steps(folder: Path, n: int = 200) -> None:
    """The folder, with the columns that a sweep of recovered cells has, and the influence of all blocks."""
    build(folder, recipes(), values=lost, n=n, jitter=0.05)
    path = folder / "sweeps/planted/table.parquet"
    table = pd.read_parquet(path)
    with_controls(table).to_parquet(path)
    shutil.rmtree(folder / "journals")  # so that a report is made from this table
    weights = str(table["weights"].iloc[0]) if "weights" in table else None
    told = {
        "model": "tiny",
        "weights": weights,
        "dtype": {"vision": "float32", "bridge": "float32", "language": "float32"},
        "calibration": "task",
        "samples": 32,
        "parts": INFLUENCES,
    }
    (folder / "influence").mkdir()
    (folder / "influence" / "abc.json").write_text(json.dumps({k: v for k, v in told.items() if v is not None}))


def with_controls(table: pd.DataFrame, metric: str = "cider") -> pd.DataFrame:
    """The table with the columns of controls, of recovery and of FLOPs."""
    listed = {k: entries(r) for k, r in zip(table["key"], table["recipe_json"], strict=True)}
    of_recovery = {str(of_kind(r, RECOVER)): k for k, r in listed.items() if not before_recovery(r) and r}
    control = {k: of_recovery.get(str(of_kind(r, RECOVER))) for k, r in listed.items() if before_recovery(r)}
    values = table.set_index("key")[metric]
    found = table["key"].map(control)
    own = found.map(values)
    drop = own - table[metric]
    trained = table["key"].map(lambda k: bool(of_kind(listed[k], RECOVER)))
    return table.assign(**{
        "control": found, f"control_{metric}": own, f"drop_control_{metric}": drop, f"drop_control_{metric}_low": drop - 0.03,
        f"drop_control_{metric}_high": drop + 0.03, "recover_steps": [120.0 if t else None for t in trained],
        "recover": ["lora r8 task" if t else None for t in trained],
        "params": 1e6 * table["model_bytes"] / table["model_bytes"].max(), "gflops": table["model_bytes"] / 1e6,
    })  # fmt: skip
