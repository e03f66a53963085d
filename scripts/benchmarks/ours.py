"""A grid through blip2sweep as it runs for a user: worker processes, from their start to their last score."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from blip2sweep.errors import UserError
from blip2sweep.machine.memory import WORKERS
from blip2sweep.metrics.java import jar, java_binary
from blip2sweep.planning.packs import make_packs, write_packs
from blip2sweep.planning.plan import Plan, PlannedJob, make_plan
from blip2sweep.results.ledger import Ledger
from blip2sweep.wire.model_section import ModelSection
from blip2sweep.wire.pack import Settings
from scripts.benchmarks import models
from scripts.benchmarks.costs import summed

ROOT = Path(__file__).resolve().parents[2]


class Setting(NamedTuple):
    """What is measured on. text: what the model reads with every image, with the image's token."""

    model: ModelSection
    task: dict[str, Any]
    device: str
    new_tokens: int
    score: bool
    folder: Path
    text: str = ""


def setting(args: argparse.Namespace, folder: Path) -> Setting:
    """Model and images; random ones are written to `folder` first."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config, score = models.model_config(args.model), can_score() and args.model != models.LLAVA
    if args.model == "tiny":
        task = models.task("shapes_caption", "pkg://blip2sweep.assets/shapes", args.images, args.nll)
        return Setting(config, task, device, 32, score, ROOT / "blip2sweep/assets/tiny")
    models.write_model(config, folder / "model", device)
    config = {**config, "path": str(folder / "model"), "hub_id": None}
    images = args.images or (8 if args.model == models.LLAVA else 32)
    task = {**models.write_images(folder / "images", images), "nll_references": args.nll}
    # Ten tokens are the mean length of a caption; random weights seldom end one.
    return Setting(config, task, device, 10, score, folder / "model", models.text_of(config))


def can_score() -> bool:
    try:
        return bool(java_binary()) and jar("meteor/meteor-1.5.jar").is_file()
    except UserError:
        return False


def planned(given: Setting, cells: Sequence[dict[str, Any]], output_dir: Path) -> Plan:
    generation = {
        "name": "benchmark",
        "presets": {"caption": {"any": {"num_beams": 1, "max_new_tokens": given.new_tokens}}},
    }
    rest = {"model": given.model, "task": given.task, "generation": generation}
    return make_plan([PlannedJob((), {**cell, **rest}) for cell in cells], Ledger(output_dir))


def ours(given: Setting, plan: Plan, output_dir: Path, workers: int) -> dict[str, Any]:
    """The grid through workers, and what their ledger says of it. Seconds by stage are summed over the workers."""
    settings: Settings = {
        "batch_size": None,
        "cache": "disk",
        "cache_dir": str(output_dir / "cache"),
        "device": given.device,
    }
    packs = make_packs([c.job() for c in plan.todo], workers)
    paths = write_packs(packs, output_dir, "benchmark", "benchmark", output_dir, settings)
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // len(paths))))
    told = {"OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false", WORKERS: str(len(paths))}
    env = {**os.environ, "PYTHONPATH": str(ROOT), **told}
    start, began, cpu = time.perf_counter(), time.time(), cpu_seconds()
    running = [
        subprocess.Popen([sys.executable, "-m", "blip2sweep.workers.worker", str(p)], env=env, stderr=subprocess.PIPE)
        for p in paths
    ]
    ended = [_ended(process) for process in running]
    seconds = time.perf_counter() - start
    failed = [e.errors for process, e in zip(running, ended, strict=True) if process.returncode and given.score]
    results = Ledger(output_dir).refresh().results()
    if failed or len(results) != len(plan.cells):
        raise SystemExit("\n".join(failed or [e.errors for e in ended])[-3000:])
    first = min(a.last_start["time"] for a in Ledger(output_dir).refresh().attempts.values() if a.last_start)
    tail = began + seconds - max(r["time"] for r in results)
    around = {"before_first_cell": first - began, "after_last_cell": tail, "cpu_seconds": cpu_seconds() - cpu}
    around |= {"own_cpu_seconds": sum(e.own for e in ended), "cpu_before_first_cell": sum(e.before for e in ended)}
    return {"seconds": seconds, "workers": len(paths), **around, **summed([r["cost"] for r in results])}


class _Ended(NamedTuple):
    """A worker that has ended: what it wrote to stderr, and its processor seconds without those of the scoring process,
    in all and before its first cell."""

    errors: str
    own: float
    before: float


def _ended(process: subprocess.Popen[bytes]) -> _Ended:
    assert process.stderr is not None
    text, before = "", 0.0
    for line in process.stderr:
        text += line.decode()
        before = before or (_own_cpu(process.pid) if b" started" in line else 0.0)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # after `wait` the kernel has forgotten them
    own = _own_cpu(process.pid)
    process.wait()
    return _Ended(text, own, before)


def _own_cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_seconds() -> float:
    """Of this process and all its children that have ended: unlike wall time it says little of the neighbours."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)
