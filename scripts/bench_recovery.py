"""What recovery brings back on the tiny model, and which order of blocks loses least.

    OMP_NUM_THREADS=1 python scripts/bench_recovery.py            # recovery and orders
    OMP_NUM_THREADS=1 python scripts/bench_recovery.py recovery   # two Q-Former blocks dropped, three seeds
    OMP_NUM_THREADS=1 python scripts/bench_recovery.py orders     # blocks chosen by calibration data and by place

Both are sweeps over the 500 captions. Seconds are CPU seconds of the whole sweep, its children included, and of one
training alone (the median). `--limit 20` is a trial.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

DROPPED = "qformer:4-5"
SEEDS = "0,1,2"
PARTS = ("vit", "qformer", "llm")
ORDERS = ("first", "middle", "last", "influence")


def swept(folder: Path, name: str, limit: int | None, *words: str) -> tuple[pd.DataFrame, float]:
    """(the table of a sweep, CPU seconds)."""
    command = [sys.executable, "-m", "blip2sweep", "-m", *words, f"sweep_name={name}"]
    command += [] if limit is None else [f"task.limit={limit}"]
    before = _cpu()
    subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return pd.read_parquet(folder / "outputs" / "sweeps" / name / "table.parquet"), _cpu() - before


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def recovery(folder: Path, limit: int | None) -> str:
    """Each method and loss, with its control: the uncompressed model with the same recovery."""
    lines = ["| | CIDEr, three seeds | mean of the baseline | drop to control, mean | steps chosen | s a training |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    total = 0.0
    words = ("part=none", f"drop_blocks={DROPPED}")
    for name, own in (
        ("nothing", ()),
        ("lora", ("recover=lora", f"recover.seed={SEEDS}")),
        ("lora distill", ("recover=lora", "recover.loss=distill", f"recover.seed={SEEDS}")),
        ("full", ("recover=full", f"recover.seed={SEEDS}")),
    ):
        table, seconds = swept(folder, name.replace(" ", "-"), limit, *words, *own)
        total += seconds
        lines.append(_row(name, table))
    return "\n".join([*lines, f"\n{total:.0f} CPU seconds for all cells, baselines and controls."])


def _row(name: str, table: pd.DataFrame) -> str:
    base = table.loc[table["key"] == table["baseline"], "cider"].iloc[0]
    cells = table[table["blocks_dropped"].notna()]
    share = f"{cells['cider'].mean() / base:.1%}"
    found = " ".join(f"{x:.3f}" for x in cells["cider"])
    if "recover" not in cells or cells["recover"].isna().all():
        return f"| {name} | {found} | {share} of {base:.3f} | | | |"
    steps = " ".join(str(int(x)) for x in cells["recover_steps"])
    trained = cells["seconds_recover"].median()
    return f"| {name} | {found} | {share} | {cells['drop_control_cider'].mean():.3f} | {steps} | {trained:.0f} |"


def orders(folder: Path, limit: int | None) -> str:
    """CIDEr with two and three blocks of a part dropped, by each order. Influence is measured on calibration samples."""
    found: dict[tuple[str, int], list[str]] = {}
    total = 0.0
    for order in ORDERS:
        every = ",".join(f"{part}:{n}@{order}" for part in PARTS for n in (2, 3))
        table, seconds = swept(folder, f"orders-{order}", limit, "part=none", f"drop_blocks={every}")
        total += seconds
        base = table.loc[table["key"] == table["baseline"], "cider"].iloc[0]
        cells = table[table["blocks_dropped"].notna()]
        for dropped, cider in zip(cells["blocks_dropped"], cells["cider"], strict=True):
            part, _, blocks = dropped.partition(":")
            found.setdefault((part, _count(blocks)), []).append(f"{cider:.3f} ({blocks})")
    lines = ["| dropped | " + " | ".join(ORDERS) + " |", "|---|" + "---|" * len(ORDERS)]
    lines += [f"| {part} {n} | {' | '.join(found[part, n])} |" for part in PARTS for n in (2, 3)]
    return "\n".join([*lines, f"\nBaseline {base:.3f}. {total:.0f} CPU seconds."])


def _count(blocks: str) -> int:
    """How many blocks `0-2+4` names."""
    ends = [piece.split("-") for piece in blocks.split("+")]
    return sum(int(x[-1]) - int(x[0]) + 1 for x in ends)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["recovery", "orders"], choices=["recovery", "orders"])
    parser.add_argument("--limit", type=int, help="captions; all by default")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="bench-recovery-") as name:
        for what in given.what:
            print(f"## {what}\n\n{ {'recovery': recovery, 'orders': orders}[what](Path(name), given.limit) }\n")


if __name__ == "__main__":
    main()
