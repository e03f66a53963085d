"""How long it takes to queue 1000 planned cells on Slurm: packs written, arrays accepted, the sweep noted.

    scripts/slurm_dev.sh up
    python scripts/bench_submit.py

Once in packs as the launcher makes them, once with a pack for every cell. The jobs are submitted held, so that nothing
runs, and cancelled. A whole process with planning is timed beside it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from blip2sweep.planning.plan import make_plan
from blip2sweep.planning.sweep import new_sweep
from blip2sweep.results.ledger import Ledger
from blip2sweep.slurm.launch import queue_sweep
from blip2sweep.wire.launcher import Launcher
from scripts.chaos import TASK, grid
from tests.composing import composer, jobs

CELLS = 1000
LAUNCHER: Launcher = {"cpus_per_task": 1, "mem_gb": 1, "timeout_min": 60, "array_parallelism": 32, "name": "bench",
            "stderr_to_stdout": True, "signal_delay_s": 120, "additional_parameters": {"hold": True}}  # fmt: skip


def queued(pack_minutes: float) -> tuple[int, int, float]:
    """(packs, arrays, seconds) of queueing a plan that is made already."""
    with tempfile.TemporaryDirectory() as folder:
        output_dir = Path(folder) / "outputs"
        plan = make_plan(jobs(*TASK, *grid(CELLS)), Ledger(output_dir))
        cells = [c.job() for c in plan.todo]
        sweep = new_sweep(plan, "bench", "bench", Ledger(output_dir))
        start = time.perf_counter()
        submission = queue_sweep(cells, sweep, output_dir, {**LAUNCHER, "pack_minutes": pack_minutes})
        seconds = time.perf_counter() - start
        subprocess.run(["scancel", *[a["job"] for a in submission.arrays]], check=True)
        return submission.packs, len(submission.arrays), seconds


def whole() -> float:
    """Seconds of the command itself, from its start to its return."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", *TASK, *grid(CELLS), "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1",
                 "hydra.launcher.mem_gb=1", "hydra.launcher.wait=false",
                 "+hydra.launcher.additional_parameters.hold=true"]  # fmt: skip
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "blip2sweep", *words], cwd=folder, check=True, capture_output=True)
        seconds = time.perf_counter() - start
        subprocess.run([sys.executable, "-m", "blip2sweep", "cancel"], cwd=folder, check=True, capture_output=True)
        return seconds


def main() -> None:
    composer()  # Hydra's own start belongs to planning
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}; {CELLS} cells and a baseline")
    for minutes in (30, 0):
        packs, arrays, seconds = queued(minutes)
        print(f"{seconds:8.2f} s  queueing {packs} packs in {arrays} arrays")
    print(f"{whole():8.2f} s  the whole command with planning, wait=false")


if __name__ == "__main__":
    main()
