"""What sharing is worth: a grid through blip2sweep against the published study's procedure, side by side, in one run.

    python scripts/benchmark.py --model tiny --grid part_wise            # also: --grid card | seed_grid
    python scripts/benchmark.py --model mid --grid part_wise --images 32
    python scripts/benchmark.py --model blip2-opt-2.7b --grid seed_grid --images 1000    # one GPU, random weights, bf16
    … --json

The reference (scripts/benchmarks/reference.py) is timed on --reference-cells cells spread over the grid and scaled to the
whole of it. Ours is timed as it runs: a worker process from its start, imports and loading included, to its last score.
Needs torch and transformers; without Java and pycocoevalcap neither side scores, which the output says.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout, installed or not
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # for both sides: another busy process must not decide the ratio

import torch
import transformers

from blip2sweep.anatomy import anatomy
from blip2sweep.cell import Cell
from blip2sweep.errors import UserError
from blip2sweep.ledger import Ledger
from blip2sweep.metrics.java import jar, java_binary
from blip2sweep.recipe.compact import expand
from blip2sweep.records import read_predictions, stem
from blip2sweep.sweep.packs import make_packs, write_packs
from blip2sweep.sweep.plan import Job, Plan, make_plan
from blip2sweep.tasks import load_task
from scripts.benchmarks import floor, models, reference
from scripts.benchmarks.grids import grid
from scripts.benchmarks.ties import gaps


class Setting(NamedTuple):
    """What is measured on."""

    model: dict[str, Any]
    task: dict[str, Any]
    device: str
    new_tokens: int
    score: bool
    folder: Path


def setting(args: argparse.Namespace, folder: Path) -> Setting:
    """Model and images; random ones are written to `folder` first."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config, score = models.model_config(args.model), can_score()
    if args.model == "tiny":
        task = models.task("shapes_caption", "pkg://blip2sweep.assets/shapes", args.images, args.nll)
        return Setting(config, task, device, 32, score, Path(str(ROOT / "blip2sweep/assets/tiny")))
    models.write_model(config, folder / "model", device)
    config = {**config, "path": str(folder / "model"), "hub_id": None}
    task = {**models.write_images(folder / "images", args.images or 32), "nll_references": args.nll}
    # Ten tokens are the mean length of a caption; random weights seldom end one.
    return Setting(config, task, device, 10, score, folder / "model")


def can_score() -> bool:
    try:
        return bool(java_binary()) and jar("meteor/meteor-1.5.jar").is_file()
    except UserError:
        return False


# ---- ours


def planned(given: Setting, cells: Sequence[dict[str, Any]], output_dir: Path) -> Plan:
    generation = {
        "name": "benchmark",
        "presets": {"caption": {"opt": {"num_beams": 1, "max_new_tokens": given.new_tokens}}},
    }
    rest = {"model": given.model, "task": given.task, "generation": generation}
    return make_plan([Job((), {**cell, **rest}) for cell in cells], Ledger(output_dir))


def ours(given: Setting, plan: Plan, output_dir: Path, workers: int) -> dict[str, Any]:
    """The grid through workers, and what their ledger says of it."""
    settings = {"batch_size": None, "cache": "disk", "cache_dir": str(output_dir / "cache"), "device": given.device}
    packs = make_packs([c.job() for c in plan.todo], workers)
    paths = write_packs(packs, output_dir, "benchmark", "benchmark", output_dir, settings)
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // workers)))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    start, began, cpu = time.perf_counter(), time.time(), cpu_seconds()
    running = [
        subprocess.Popen([sys.executable, "-m", "blip2sweep.sweep.worker", str(p)], env=env, stderr=subprocess.PIPE)
        for p in paths
    ]
    errors = [process.communicate()[1].decode() for process in running]
    seconds = time.perf_counter() - start
    failed = [e for process, e in zip(running, errors, strict=True) if process.returncode and given.score]
    results = Ledger(output_dir).refresh().results()
    if failed or len(results) != len(plan.cells):
        raise SystemExit("\n".join(failed or errors)[-3000:])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    first = min(a.last_start["time"] for a in Ledger(output_dir).refresh().attempts.values() if a.last_start)
    tail = began + seconds - max(r["time"] for r in results)
    around = {"before_first_cell": first - began, "after_last_cell": tail, "cpu_seconds": cpu_seconds() - cpu}
    return {"seconds": seconds, "peak_memory_bytes": peak, **around, **summed([r["cost"] for r in results])}


def summed(costs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Seconds by stage and hits, over all cells."""
    names = sorted({k for c in costs for k in c if k.startswith(("seconds_", "hits_", "layers_"))})
    total = {k: round(sum(c.get(k, 0) for c in costs), 3) for k in names}
    in_cells = sum(c["seconds"] for c in costs)
    batch = {k: costs[-1][k] for k in ("batch_size", "sequence_batch_size", "device")}
    return {
        "in_cells": in_cells,
        "accelerator_peak_bytes": max(c["peak_memory_bytes"] for c in costs),
        **batch,
        **total,
    }


# ---- the reference


class Timed(NamedTuple):
    """One cell of the reference."""

    cell: Cell
    texts: list[str]
    steps: dict[str, float]
    cpu_seconds: float


def timed(given: Setting, cell: Cell) -> Timed:
    samples, before = load_task(given.task).samples, cpu_seconds()
    texts, steps = reference.cell(
        given.folder, layers(given, cell), [s.image for s in samples], [s.references for s in samples],
        given.device, given.model["dtype"], given.new_tokens, given.score,
    )  # fmt: skip
    return Timed(cell, texts, steps, cpu_seconds() - before)


def layers(given: Setting, cell: Cell) -> dict[str, tuple[str, int]]:
    """{module path: (method, bits)} as the reference takes it."""
    recipe = expand(cell.job()["recipe"], anatomy(given.model))
    return {path: (s.weights.method, s.weights.num_bits) for path, s in recipe.schemes.items()}


def judged(given: Setting, done: Sequence[Timed], output_dir: Path) -> dict[str, Any]:
    """Means a cell, and how the predictions compare with ours."""
    samples, ledger = load_task(given.task).samples, Ledger(output_dir).refresh()
    agreement: dict[str, Any] = {"captions": 0, "differing": 0, "gaps": []}
    for one in done:
        result = ledger.attempts[one.cell.key].result
        assert result is not None
        found = read_predictions(output_dir, stem(one.cell.key, result["predictions"])).text
        differing = [i for i, (a, b) in enumerate(zip(one.texts, found, strict=True)) if a != b]
        agreement["captions"] += len(found)
        agreement["differing"] += len(differing)
        pairs = [(samples[i].image, one.texts[i], found[i]) for i in differing[:20]]
        agreement["gaps"] += gaps(given, layers(given, one.cell), pairs)
    steps = {k: sum(one.steps[k] for one in done) / len(done) for k in done[0].steps} if done else {}
    cpu = sum(one.cpu_seconds for one in done) / max(1, len(done))
    seconds = sum(steps.values()) if done else float("nan")
    return {
        "cells_timed": len(done),
        "seconds_per_cell": seconds,
        "cpu_per_cell": cpu,
        "steps": steps,
        "agreement": agreement,
    }


def cpu_seconds() -> float:
    """Of this process and all its children that have ended: unlike wall time it says little of the neighbours."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


# ---- the report


def compared(
    args: argparse.Namespace, given: Setting, plan: Plan, mine: dict[str, Any], theirs: dict[str, Any]
) -> dict[str, Any]:
    cells, images = len(plan.cells), len(load_task(given.task).images)
    per_cell = mine["seconds"] / cells
    return {
        "model": args.model, "grid": args.grid, "cells": cells, "images": images, "nll_references": args.nll,
        "scored": given.score, "workers": args.workers, "machine": machine(given.device),
        "ratio": theirs["seconds_per_cell"] / per_cell,
        "cpu_ratio": theirs["cpu_per_cell"] / (mine["cpu_seconds"] / cells),
        "ours": {"seconds_per_cell": per_cell, "cells_per_hour": 3600 / per_cell, **mine},
        "reference": {**theirs, "cells_per_hour": 3600 / theirs["seconds_per_cell"]},
        "captions_per_second": cells * images / mine.get("seconds_language", float("nan")),
        "images_per_second": cells * images / mine["in_cells"],
        "floor": shares(given, mine, cells * images),
    }  # fmt: skip


def shares(given: Setting, mine: dict[str, Any], images: int) -> dict[str, float]:
    """Of the arithmetic that was left to do, how much of the device's best rate each stage reached."""
    best = floor.peak(given.device)
    need = floor.flops(given.model["config"], given.new_tokens)
    blocks = given.model["config"]["vision_config"]["num_hidden_layers"]
    per_cell = images / max(1, mine["cells"])
    run = images - mine["hits_vision_blocks"] * per_cell / blocks
    bridged = images - mine["hits_bridge"]
    work = {"vision": need.vision * run, "bridge": need.bridge * bridged, "language": need.language * images}
    found = {k: v / best / mine[f"seconds_{k}"] for k, v in work.items() if mine.get(f"seconds_{k}")}
    return {"peak_tflops": best / 1e12, **{f"share_{k}": v for k, v in found.items()}}


def machine(device: str) -> str:
    name = torch.cuda.get_device_name() if device == "cuda" else f"{len(os.sched_getaffinity(0))} cores"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, python {platform.python_version()}"
    return f"{name}, load {os.getloadavg()[0]:.1f}, {versions}"


def show(found: dict[str, Any]) -> None:
    mine, theirs = found["ours"], found["reference"]
    print(f"{found['model']}, {found['grid']}: {found['cells']} cells of {found['images']} images; {found['machine']}")
    print(
        f"  reference  {theirs['seconds_per_cell']:8.2f} s a cell (from {theirs['cells_timed']} cells) {rounded(theirs['steps'])}"
    )
    stages = {
        k.removeprefix("seconds_"): v for k, v in mine.items() if k.startswith("seconds_") and k != "seconds_per_cell"
    }
    print(
        f"  blip2sweep {mine['seconds_per_cell']:8.2f} s a cell; {mine['seconds']:.1f} s in all: {rounded(stages)}, before the first cell {mine['before_first_cell']:.1f}, after the last {mine['after_last_cell']:.1f}"
    )
    print(
        f"  ratio {found['ratio']:.1f} (of processor time {found['cpu_ratio']:.1f}); cells per hour {theirs['cells_per_hour']:.0f} and {mine['cells_per_hour']:.0f}"
    )
    print(f"  hits {rounded({k: v for k, v in mine.items() if k.startswith(('hits_', 'layers_'))})}")
    print(
        f"  floor {rounded(found['floor'])}; captions/s {found['captions_per_second']:.0f}; peak memory {mine['peak_memory_bytes'] / 1e9:.2f} GB"
    )
    agreement = theirs["agreement"]
    print(
        f"  predictions: {agreement['differing']} of {agreement['captions']} differ; logit gaps there {rounded_list(agreement['gaps'])}"
    )


def rounded(values: dict[str, float]) -> str:
    return ", ".join(f"{k} {v:.3g}" for k, v in values.items())


def rounded_list(values: Sequence[float]) -> str:
    return ", ".join(f"{v:.2g}" for v in values) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "mid", "blip2-opt-2.7b"), default="tiny")
    parser.add_argument("--grid", choices=("card", "part_wise", "seed_grid"), default="card")
    parser.add_argument("--images", type=int, help="default: all 500 of tiny's, else 32")
    parser.add_argument("--cells", type=int, help="of the grid; seed_grid has up to 1512, 60 by default")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--reference-cells", type=int, default=6, help="0: ours alone")
    parser.add_argument("--nll", type=int, default=1, help="references whose likelihood ours measures too; 0: none")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="blip2sweep-benchmark-") as folder:
        given, output_dir = setting(args, Path(folder)), Path(folder) / "outputs"
        plan = planned(given, grid(args.grid, args.cells), output_dir)
        cells, count = list(plan.cells.values()), args.reference_cells
        chosen = [cells[i * len(cells) // count] for i in range(count)]
        done = [timed(given, cell) for cell in chosen[: count // 2]]  # half before and half after, on the same machine
        mine = {"cells": len(cells), **ours(given, plan, output_dir, args.workers)}
        done += [timed(given, cell) for cell in chosen[count // 2 :]]
        theirs = judged(given, done, output_dir)
        found = compared(args, given, plan, mine, theirs)
    print(json.dumps(found)) if args.json else show(found)


if __name__ == "__main__":
    main()
