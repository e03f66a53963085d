"""What the benchmark found: ratio, rates, shares of the floor, and whether the predictions agree."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence
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
from scripts.benchmarks.ties import disagreement, gaps
from scripts.benchmarks.timing import Timed, layers

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
        texts = read_predictions(output_dir, predictions_name(result)).outputs[: one.images]
        differing = [i for i, (a, b) in enumerate(zip(one.texts, texts, strict=True)) if a != b]
        pairs = [(samples[i].image, one.texts[i], texts[i]) for i in differing[:LOOKED_AT]]
        found["captions"] += len(texts)
        found["differing"] += len(differing)
        found["gaps"] += gaps(given, layers(given, one.cell), pairs)
    return found


def compared(
    args: argparse.Namespace, given: Setting, plan: Plan, mine: dict[str, Any], theirs: dict[str, Any]
) -> dict[str, Any]:
    cells, images = len(plan.cells), len(load_task(given.task).images)
    per_cell, workers = mine["seconds"] / cells, mine["workers"]
    answered = cells * images - mine.get("hits_language", 0)  # the rest was remembered
    return {
        "model": args.model, "grid": args.grid, "cells": cells, "images": images, "nll_references": args.nll,
        "scored": given.score, "machine": machine(given.device),
        "ratio": theirs["seconds_per_cell"] / per_cell,
        "cpu_ratio": theirs["cpu_per_cell"] / (mine["cpu_seconds"] / cells),
        "ours": {"seconds_per_cell": per_cell, "cells_per_hour": 3600 / per_cell, **mine},
        "reference": {**theirs, "cells_per_hour": 3600 / theirs["seconds_per_cell"]},
        "captions_per_second": answered * workers / mine.get("seconds_language", float("nan")),
        "images_per_second": cells * images * workers / mine["in_cells"],
        "floor": shares(given, mine, cells * images, floor.peak(given.device)),
        "disagreement": disagreement(given.model["dtype"], theirs["agreement"]),
    }  # fmt: skip


def shares(given: Setting, mine: dict[str, Any], images: int, peak: float) -> dict[str, float]:
    """`costs.shares` of a setting."""
    return costs.shares(cast("dict[str, Any]", given.model["config"]), given.new_tokens, mine, images, peak)


def machine(device: str) -> str:
    name = torch.cuda.get_device_name() if device == "cuda" else f"{len(os.sched_getaffinity(0))} cores"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, python {platform.python_version()}"
    return f"{name}, load {os.getloadavg()[0]:.1f}, {versions}"


# ---- in words


def show(found: dict[str, Any]) -> None:
    """Print it, a line a side."""
    mine, theirs, agreement = found["ours"], found["reference"], found["reference"]["agreement"]
    few = 0 < theirs["images_timed"] < found["images"]
    scaled = f", of {theirs['images_timed']} images each, generating scaled to {found['images']}" if few else ""
    looked_at = f" at {len(agreement['gaps'])} of them" if agreement["gaps"] else ""
    lines = [
        f"{found['model']}, {found['grid']}: {found['cells']} cells of {found['images']} images; {found['machine']}",
        f"  reference  {theirs['seconds_per_cell']:8.2f} s a cell (from {theirs['cells_timed']} cells{scaled}; "
        f"{theirs['environment']}) {rounded(theirs['steps'])}; peak memory {theirs['peak_memory_bytes'] / 1e9:.2f} GB",
        f"  blip2sweep {mine['seconds_per_cell']:8.2f} s a cell; {mine['seconds']:.1f} s in all, {mine['workers']} "
        f"workers: {rounded(stages(mine))}, before the first cell {mine['before_first_cell']:.1f}, after the last "
        f"{mine['after_last_cell']:.1f}; peak memory {mine['peak_memory_bytes'] / 1e9:.2f} GB",
        f"  ratio {found['ratio']:.1f} (of processor time {found['cpu_ratio']:.1f}); cells per hour "
        f"{theirs['cells_per_hour']:.0f} and {mine['cells_per_hour']:.0f}",
        f"  hits {rounded({k: v for k, v in mine.items() if k.startswith(('hits_', 'layers_'))})}",
        f"  floor {rounded(found['floor'])}; the language stage alone: {found['captions_per_second']:.0f} captions/s",
        f"  predictions: {agreement['differing']} of {agreement['captions']} differ; logit gaps{looked_at}, in roundings: "
        f"{', '.join(f'{v:.2g}' for v in agreement['gaps']) or 'none'}",
    ]
    lines += bound.lines(found["bound"], mine["device"]) if "bound" in found else ()
    print("\n".join(lines))


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
