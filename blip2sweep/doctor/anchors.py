"""Baselines with real weights and known scores, to test an installation (`blip2sweep doctor --anchor`)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blip2sweep.canonical import digest
from blip2sweep.errors import UserError, nearest


@dataclass(frozen=True)
class Anchor:
    """The overrides of one baseline, and the metrics that it reaches within a tolerance."""

    overrides: tuple[str, ...]
    expected: dict[str, float]
    tolerance: float
    source: str


ANCHORS = {
    "seed": Anchor(
        (
            "model=blip2-opt-2.7b",
            "model.dtype=float32",
            "task=coco_caption",
            "task.split=val2017",
            "task.limit=1000",
            "generation=seed",
        ),
        {"cider": 1.28528, "meteor": 0.27852, "rouge_l": 0.58021, "bleu_4": 0.36776},
        0.005,
        "the captions of the published study (gautomdas/blip2-coco), re-scored",
    ),
    "opt-2.7b-coco": Anchor(
        ("model=blip2-opt-2.7b-coco", "task=coco_caption", "generation=paper"),
        {"cider": 1.458, "bleu_4": 0.437},
        0.01,
        "BLIP-2 paper, LAVIS",
    ),
    "opt-2.7b-vqa": Anchor(
        ("model=blip2-opt-2.7b", "task=vqav2", "generation=paper"),
        {"vqa_accuracy": 0.534},
        0.005,
        "a reproduction of the BLIP-2 paper's 53.5",
    ),
    "flan-t5-xl-vqa": Anchor(
        ("model=blip2-flan-t5-xl", "task=vqav2", "generation=paper"),
        {"vqa_accuracy": 0.618},
        0.005,
        "a reproduction, int8",
    ),
}


def run_anchor(name: str, output_dir: Path, more: Sequence[str] = ()) -> tuple[list[str], bool]:
    """Run an anchor's baseline by the command line.

    Returns (lines to print, whether all metrics are within tolerance).
    """
    if name not in ANCHORS:
        raise UserError(f"--anchor {name}: unknown; {nearest(name, ANCHORS)}")
    anchor = ANCHORS[name]
    command = [sys.executable, "-m", "blip2sweep", *anchor.overrides, "part=none", *more]
    sweep = f"anchor-{name}" + (f"-{digest(sorted(more))[:6]}" if more else "")  # more overrides make another sweep
    done = subprocess.run([*command, f"sweep_name={sweep}", "--output-dir", str(output_dir)], check=False)
    if done.returncode != 0:
        raise UserError(
            f"--anchor {name}: the baseline did not run (exit code {done.returncode}); its message is above"
        )
    return compare(name, output_dir / "sweeps" / sweep / "table.parquet")


def compare(name: str, table: Path) -> tuple[list[str], bool]:
    """Compare the baseline's row with the expected metrics. Returns as `run_anchor` does."""
    import pandas as pd

    anchor, row = ANCHORS[name], pd.read_parquet(table).iloc[0]
    off = {m: float(row[m]) - value for m, value in anchor.expected.items()}
    verdicts = {m: "ok" if abs(d) <= anchor.tolerance else "OFF" for m, d in off.items()}
    lines = [
        f"{verdicts[m]:4} {m}: {row[m]:.5f}, expected {value:.5f} ± {anchor.tolerance} ({off[m]:+.5f})"
        for m, value in anchor.expected.items()
    ]
    return [*lines, f"source: {anchor.source}"], set(verdicts.values()) == {"ok"}
