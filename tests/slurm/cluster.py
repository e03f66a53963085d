"""Sweeps on a real Slurm, with an evaluator that needs no model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from blip2sweep.results.ledger import Ledger
from blip2sweep.results.predictions import stem
from blip2sweep.results.sweeps import find_sweep
from tests.command_line import Ran, blip2sweep

SLURM = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1"]
TASK = ["task=shapes_vqa", "task.limit=4"]
TEN = [*TASK, "part=vit,llm,qformer", "quant.bits=2,4,8"]  # ten cells with the baseline


@dataclass
class Bench:
    """A folder to run commands in, and how the stand-in for a model behaves there."""

    folder: Path
    behaviour: dict[str, Any] = field(default_factory=dict)
    model: bool = False

    @property
    def env(self) -> dict[str, str]:
        return {"BLIP2SWEEP_DUMMY": json.dumps(self.behaviour)}

    @property
    def backend(self) -> list[str]:
        return [] if self.model else ["backend=dummy"]

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs"

    def run(self, *words: str, timeout: float = 240) -> Ran:
        return blip2sweep(*words, cwd=self.folder, env=self.env, timeout=timeout)

    def sweep(self, *words: str) -> Ran:
        """A sweep named `s`, one pack unless the words say more."""
        return self.run("-m", *SLURM, *self.backend, "sweep_name=s", *words)

    def start(self, *words: str, name: str = "s") -> subprocess.Popen[str]:
        """The same in the background."""
        command = [sys.executable, "-m", "blip2sweep", "-m", *SLURM, *self.backend, f"sweep_name={name}", *words]
        env = {**os.environ, **self.env, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        return subprocess.Popen(
            command, cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.outputs).refresh()

    def in_hand(self) -> list[dict[str, Any]]:
        """Starts that nothing has ended."""
        return [s for a in self.ledger.attempts.values() if not a.done for s in a.open]

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = [x for p in (self.outputs / "journals").glob("*") for x in p.read_text().splitlines()]
        return [e for e in map(json.loads, lines) if e["event"] == kind]

    def jobs(self, name: str = "s") -> list[str]:
        if not (self.outputs / "sweeps" / name / "sweep.json").exists():
            return []
        return [a["job"] for s in find_sweep(self.outputs, name).submissions for a in s.arrays]

    def table(self, name: str = "s") -> pd.DataFrame:
        return pd.read_parquet(self.outputs / "sweeps" / name / "table.parquet")


def until(what: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for something to be true; its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def go_on_now(job: str) -> None:
    """A requeued job waits two minutes for its node to be cleaned up; here it need not. But a credential of the second in
    which the last one was revoked is revoked too."""
    time.sleep(2.5)
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now")


def pending(job: str) -> bool:
    return slurm("squeue", "-h", "-r", "-j", job, "-o", "%T").split() == ["PENDING"]


def check(bench: Bench, failed: int = 0, cells: int = 10, name: str = "s") -> pd.DataFrame:
    """Every cell once in the table, the failures and only they reported, no file without an owner, no job left."""
    table = bench.table(name)
    assert sorted(table["key"]) == sorted(find_sweep(bench.outputs, name).keys)
    assert len(table) == cells
    assert (table["status"] == "failed").sum() == failed
    assert table.loc[table["status"] == "done", "vqa_accuracy"].notna().all()
    results = {stem(r["key"], r["predictions"]) for r in bench.ledger.results()}
    for folder in ("predictions", "scores"):
        assert {p.name.partition(".")[0] for p in (bench.outputs / folder).iterdir()} == results
    assert not list(bench.outputs.rglob("*.tmp"))
    until(lambda: not set(bench.jobs(name)) & set(slurm("squeue", "-h", "-o", "%F").split()))
    return table
