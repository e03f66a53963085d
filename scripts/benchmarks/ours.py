"""A grid through blip2sweep as it runs for a user: worker processes, from their start to their last score."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from blip2sweep.errors import UserError
from blip2sweep.machine.memory import WORKERS
from blip2sweep.metrics.java import jar, java_binary
from blip2sweep.planning.packs import make_packs, write_packs
from blip2sweep.planning.plan import Plan, PlannedJob, make_plan
from blip2sweep.results.ledger import Ledger
from blip2sweep.wire.model_section import ModelSection
from blip2sweep.wire.pack import Settings
from scripts.benchmarks import models, told, worker
from scripts.benchmarks.costs import summed

STOPPING = "blip2sweep.planning.stopping"  # where versions that can stop cells early choose which
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
    config, kind = models.model_config(args.model), args.task
    score = kind == "vqa" or (can_score() and args.model != models.LLAVA)
    if args.model in models.SHIPPED:
        limit = args.images and args.images * (models.QUESTIONS if kind == "vqa" else 1)
        task = models.task(f"shapes_{kind}", "pkg://blip2sweep.assets/shapes", limit, args.nll, kind)
        own = ROOT / "blip2sweep/assets" / args.model
        return Setting(config, task, device, 10 if kind == "vqa" else 32, score, own, models.text_of(config, own))
    models.write_model(config, folder / "model", device)
    config = {**config, "path": str(folder / "model"), "hub_id": None}
    images = args.images or (8 if args.model == models.LLAVA else 32)
    task = {**models.write_images(folder / "images", images, kind), "nll_references": args.nll}
    # The mean length of a caption is ten tokens, that of an answer and its end two; random weights seldom end one.
    return Setting(config, task, device, 2 if kind == "vqa" else 10, score, folder / "model", models.text_of(config))


def can_score() -> bool:
    try:
        return bool(java_binary()) and jar("meteor/meteor-1.5.jar").is_file()
    except UserError:
        return False


def planned(given: Setting, cells: Sequence[dict[str, Any]], output_dir: Path, stop: str | None = None) -> Plan:
    """The grid's plan. stop: `evaluation.stop` of all cells."""
    greedy = {"num_beams": 1, "max_new_tokens": given.new_tokens}
    questions = {"opt": {**greedy, "prompt": "Question: {} Answer:"}, "any": greedy}
    generation = {"name": "benchmark", "presets": {"caption": {"any": greedy}, "vqa": questions}}
    rest = {"model": given.model, "task": given.task, "generation": generation}
    rest |= {"evaluation": {"stop": stop}} if stop else {}
    return make_plan([PlannedJob((), {**cell, **rest}) for cell in cells], Ledger(output_dir))


def ours(given: Setting, plan: Plan, output_dir: Path, workers: int, stop: str | None = None) -> dict[str, Any]:
    """The grid through workers, and what their ledger and they (worker.py) say of it. Seconds by stage are summed over the
    workers. stop: the rule by which cells may stop before they have seen all images. seen: token ids of prompts and
    references, and the tokens of each text of the cells that were computed."""
    settings = {
        "batch_size": None,
        "cache": "disk",
        "cache_dir": str(output_dir / "cache"),
        "device": given.device,
        **stopping(plan, stop),
    }
    packs = make_packs([c.job() for c in plan.todo], workers)
    paths = write_packs(packs, output_dir, "benchmark", "benchmark", output_dir, cast("Settings", settings))
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // len(paths))))
    few = {"OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false", WORKERS: str(len(paths))}
    env = {**os.environ, "PYTHONPATH": str(ROOT), **few}
    times = [output_dir / f"times-{i}.json" for i in range(len(paths))]
    start, began, cpu = time.perf_counter(), time.time(), cpu_seconds()
    running = [_started(p, {**env, worker.FILE: str(t)}) for p, t in zip(paths, times, strict=True)]
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
    own = told.of_workers(times, began)
    own["seen"]["written"] = told.written(results, output_dir, given.new_tokens)
    return {
        "seconds": seconds, "workers": len(paths), "threads": told.threads(results), **around, **own,
        **summed([r["cost"] for r in results]), "asked_images": told.share_of_images(results), "counted_images": told.share_that_counts(results),
    }  # fmt: skip


def knows_stopping() -> bool:
    """Whether the version that runs can stop cells early."""
    return importlib.util.find_spec(STOPPING) is not None


def stopping(plan: Plan, stop: str | None) -> dict[str, Any]:
    """`evaluation.stop` as the settings of workers have it. The version before may not have the module."""
    if stop is None:
        return {}
    return {"stop": importlib.import_module(STOPPING).stopping_of(plan, {"evaluation": {"stop": stop}}, ()).request}


def _started(pack: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", worker.__name__, str(pack)], env=env, stderr=subprocess.PIPE)


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
