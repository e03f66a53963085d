"""What the benchmark found: ratio, rates, shares of the floor, and whether the predictions agree."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import transformers

from blip2sweep.planning.plan import Plan
from blip2sweep.results.committed import predictions_name
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.predictions import read_predictions
from blip2sweep.tasks import load_task
from scripts.benchmarks import bound, costs, floor
from scripts.benchmarks.ours import Setting
from scripts.benchmarks.stages import lines as stage_lines
from scripts.benchmarks.stages import table
from scripts.benchmarks.ties import disagreement, gaps
from scripts.benchmarks.timing import Timed, layers

OF_RATIO = ("median", "low", "high")
LOOKED_AT = 20  # differing captions of a cell whose gap is looked up


def judged(given: Setting, done: Sequence[Timed], output_dir: Path) -> dict[str, Any]:
    """Means a cell of the reference, and how its predictions compare with ours."""
    images = len(load_task(given.task).images)
    scaled = [_all_images(one, images) for one in done]
    steps = {k: sum(s[k] for s in scaled) / len(done) for k in done[0].steps} if done else {}
    # Processor time grows as wall time does.
    cpu = sum(o.cpu_seconds * sum(s.values()) / sum(o.steps.values()) for o, s in zip(done, scaled, strict=True))
    return {
        "cells_timed": len(done),
        "images_timed": done[0].images if done else 0,
        "seconds_per_cell": sum(steps.values()) if done else float("nan"),
        "cpu_per_cell": cpu / max(1, len(done)),
        "peak_memory_bytes": max((o.peak_memory_bytes for o in done), default=0),
        "steps": steps,
        "agreement": _agreement(given, done, output_dir),
    }


def _all_images(one: Timed, images: int) -> dict[str, float]:
    """Generating grows with the images; loading, quantizing and (to be fair) scoring are taken as they were."""
    return {**one.steps, "generate": one.steps["generate"] * images / one.images}


def _agreement(given: Setting, done: Sequence[Timed], output_dir: Path) -> dict[str, Any]:
    samples, ledger = load_task(given.task).samples, Ledger(output_dir).refresh()
    found: dict[str, Any] = {"captions": 0, "differing": 0, "gaps": []}
    for one in done:
        result = ledger.attempts[one.cell.key].result
        assert result is not None
        own = read_predictions(output_dir, predictions_name(result))
        texts = dict(zip(own.id, own.outputs, strict=True))  # of a cell that stopped early some images are not there
        both = [(s.image, a, texts[s.id]) for s, a in zip(samples, one.texts, strict=False) if s.id in texts]
        pairs = [(image, a, b) for image, a, b in both if a != b]
        found["captions"] += len(both)
        found["differing"] += len(pairs)
        found["gaps"] += gaps(given, layers(given, one.cell), pairs[:LOOKED_AT])
    return found


def compared(
    args: argparse.Namespace, given: Setting, plan: Plan, mine: dict[str, Any], theirs: dict[str, Any]
) -> dict[str, Any]:
    cells, data = len(plan.cells), load_task(given.task)
    images, per_cell, workers = len(data.images), mine["seconds"] / cells, mine["workers"]
    seen = cells * images * mine["asked_images"]
    answered = seen / images * len(data.samples) - mine.get("hits_language", 0)  # the rest was remembered
    return {
        "model": args.model, "grid": args.grid, "task": args.task, "cells": cells, "images": images, "nll_references": args.nll,
        "scored": given.score, "machine": machine(given.device),
        "ratio": theirs["seconds_per_cell"] / per_cell,
        "cpu_ratio": theirs["cpu_per_cell"] / (mine["cpu_seconds"] / cells),
        "ours": {"seconds_per_cell": per_cell, "cells_per_hour": 3600 / per_cell, **{k: v for k, v in mine.items() if k != "seen"}},
        "reference": {**theirs, "cells_per_hour": 3600 / theirs["seconds_per_cell"]},
        "captions_per_second": answered * workers / mine.get("seconds_language", float("nan")),
        "images_per_second": seen * workers / mine["in_cells"],
        "rounds": mine["rounds"], "floor": shares(given, mine, round(seen), floor.peak(given.device)) if args.task == "caption" else {},
        "stages": table(given, plan, mine), "asked_images": mine["asked_images"], "counted_images": mine["counted_images"],
        "disagreement": disagreement(given.model["dtype"], theirs["agreement"]),
    }  # fmt: skip


def shares(given: Setting, mine: dict[str, Any], images: int, peak: float) -> dict[str, float]:
    """`costs.shares` of a setting, for captions: there the prompt is hardly anything."""
    return costs.shares(cast("dict[str, Any]", given.model["config"]), given.new_tokens, mine, images, peak)


def machine(device: str) -> str:
    name = torch.cuda.get_device_name() if device == "cuda" else f"{len(os.sched_getaffinity(0))} cores"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, python {platform.python_version()}"
    return f"{name}, load {os.getloadavg()[0]:.1f}, {versions}"


# ---- in words


def lines(found: dict[str, Any]) -> Iterator[str]:
    """A line a side, and what more there is to say."""
    mine, theirs, agreement = found["ours"], found["reference"], found["reference"]["agreement"]
    few = 0 < theirs["images_timed"] < found["images"]
    scaled = f", of {theirs['images_timed']} images each, generating scaled to {found['images']}" if few else ""
    looked_at = f" at {len(agreement['gaps'])} of them" if agreement["gaps"] else ""
    yield f"{found['model']}, {found['grid']}, {found['task']}: {found['cells']} cells of {found['images']} images; {found['machine']}"
    if theirs["cells_timed"]:
        yield (
            f"  reference  {theirs['seconds_per_cell']:8.2f} s a cell (from {theirs['cells_timed']} cells{scaled}; "
            f"{theirs['environment']}) {rounded(theirs['steps'])}; peak memory {theirs['peak_memory_bytes'] / 1e9:.2f} GB"
        )
    yield (
        f"  blip2sweep {mine['seconds_per_cell']:8.2f} s a cell; {mine['seconds']:.1f} s in all, {mine['workers']} "
        f"workers: {rounded(stages(mine))}, before the first cell {mine['before_first_cell']:.1f}, after the last "
        f"{mine['after_last_cell']:.1f}; peak memory {mine['peak_memory_bytes'] / 1e9:.2f} GB"
    )
    if theirs["cells_timed"]:
        yield (
            f"  ratio {found['ratio']:.1f} (of processor time {found['cpu_ratio']:.1f}); cells per hour "
            f"{theirs['cells_per_hour']:.0f} and {mine['cells_per_hour']:.0f}"
        )
    yield from several(found["runs"]) if "runs" in found else ()
    if found["asked_images"] < 1:
        shares = [f"{100 * found[name]:.1f} %" for name in ("counted_images", "asked_images")]
        yield f"  cells stopped early: results stand on {shares[0]} of the images, {shares[1]} were computed"
        yield from by_size(found["rounds"], found["cells"])
    yield f"  hits {rounded({k: v for k, v in mine.items() if k.startswith(('hits_', 'layers_'))})}"
    yield f"  the language stage alone: {found['captions_per_second']:.0f} texts/s"
    if found["floor"]:
        yield f"  of the best rate {rounded(found['floor'])}"
    if theirs["cells_timed"]:
        yield (
            f"  predictions: {agreement['differing']} of {agreement['captions']} differ; logit gaps{looked_at}, in roundings: "
            f"{', '.join(f'{v:.2g}' for v in agreement['gaps']) or 'none'}"
        )
    yield from stage_lines(found["stages"])
    yield from bound.lines(found["bound"], mine["device"]) if "bound" in found else ()


def several(runs: dict[str, Any]) -> list[str]:
    """Ratios of runs, each against the cells of the reference right before and after it."""
    names = {"ratio": "ratio", "cpu_ratio": "of processor time"}
    each = {k: ", ".join(f"{v:.1f}" for v in runs[k]["each"]) for k in names}
    return [f"  {len(runs['ratio']['each'])} runs, {names[k]}: {each[k]}; {in_words(runs[k])}" for k in names]


def by_size(rounds: dict[int, list[float]], cells: int) -> Iterator[str]:
    """What rounds of each size took of a back end, in processor seconds."""
    yield f"  {sum(often for often, *_ in rounds.values()) / cells:.1f} rounds a cell; images: rounds, cpu s, cpu ms an image"
    for images, (often, _, cpu) in rounds.items():
        yield f"  {images:6} {often:6.0f} {cpu:8.2f} {1000 * cpu / often / images:8.2f}"


def in_words(found: dict[str, Any]) -> str:
    """A median with the interval of what is there on average."""
    median, *ends = ("" if v is None else f"{v:.2f}" if v < 10 else f"{v:.1f}" for v in map(found.get, OF_RATIO))
    return f"median {median}" + (f" (95 % interval {' to '.join(ends)})" if all(ends) else "")


def stages(mine: dict[str, Any]) -> dict[str, float]:
    """Seconds by stage, summed over cells and workers."""
    return {
        k.removeprefix("seconds_"): v for k, v in mine.items() if k.startswith("seconds_") and k != "seconds_per_cell"
    }


def rounded(values: dict[str, float]) -> str:
    return ", ".join(f"{k} {v:.3g}" for k, v in values.items())


def where(env: dict[str, str]) -> str:
    """The environment the reference ran in, in words."""
    return " ".join(f"{k}={v}" for k, v in env.items()) or "environment as it is"
