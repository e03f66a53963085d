"""Ours in turn with the reference: cells of the reference before each whole run of ours, and after it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from blip2sweep.planning.cell import Cell
from blip2sweep.planning.plan import Plan
from scripts.benchmarks import bound
from scripts.benchmarks.bound import Costs
from scripts.benchmarks.grids import grid
from scripts.benchmarks.models import LLAVA
from scripts.benchmarks.ours import Setting, ours, planned, setting
from scripts.benchmarks.pairs import ratio
from scripts.benchmarks.report import compared, judged, where
from scripts.benchmarks.timing import Timed, fastest, like_ours, timed, timed_stages

ROUNDS = 2  # of the stages' costs, before and after ours


class Turn(NamedTuple):
    """done: cells of the reference around a run. mine: what the run found."""

    done: list[Timed]
    mine: dict[str, Any]
    plan: Plan
    output_dir: Path


def against_reference(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Ours against the published procedure."""
    given = setting(args, folder)
    if given.device == "cuda":
        torch.cuda.empty_cache()  # of what the model was written with: the device is for those that are timed
    chosen = spread(list(planned(given, grid(args.grid, args.cells), folder).cells.values()), args.reference_cells)
    bounded = args.model == LLAVA and bool(chosen)
    env = like_ours(given) if bounded else fastest(given, chosen[0]) if chosen else {}
    stages = timed_stages(given, env, ROUNDS) if bounded else []
    pieces = (chosen[i :: args.runs] for i in range(args.runs))
    turns = [_turn(args, given, piece, env, folder / f"outputs-{i}") for i, piece in enumerate(pieces)]
    stages += timed_stages(given, env, ROUNDS) if bounded else []
    return _found(args, given, turns, env, stages)


def spread(cells: Sequence[Cell], count: int) -> list[Cell]:
    """So many of the cells, evenly spread over them."""
    return [cells[i * len(cells) // count] for i in range(count)]


def _turn(
    args: argparse.Namespace, given: Setting, chosen: Sequence[Cell], env: dict[str, str], output_dir: Path
) -> Turn:
    plan, half = planned(given, grid(args.grid, args.cells), output_dir, args.stop), len(chosen) // 2
    done = timed(given, chosen[:half], args.reference_images, env)
    mine = {"cells": len(plan.cells), **ours(given, plan, output_dir, args.workers, args.stop)}
    done += timed(given, chosen[half:], args.reference_images, env)
    return Turn(done, mine, plan, output_dir)


def _found(
    args: argparse.Namespace, given: Setting, turns: Sequence[Turn], env: dict[str, str], stages: Sequence[Costs]
) -> dict[str, Any]:
    """Of several runs the one of median length is told, and the ratios of all of them."""
    middle = sorted(turns, key=lambda turn: float(turn.mine["seconds"]))[len(turns) // 2]
    done = [one for turn in turns for one in turn.done]
    theirs = {"environment": where(env), **judged(given, done, middle.output_dir)}
    found = compared(args, given, middle.plan, middle.mine, theirs)
    if len(turns) > 1 and done:
        found["runs"] = ratios(
            [judged(given, turn.done, turn.output_dir) for turn in turns], [turn.mine for turn in turns]
        )
    if stages:
        a_cell = theirs["cpu_per_cell" if given.device == "cpu" else "seconds_per_cell"]
        needed = bound.needed(given, middle.plan)
        found["bound"] = bound.against(needed, stages, found["images"], middle.mine, a_cell)
    return found


def ratios(theirs: Sequence[Mapping[str, Any]], mine: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """{`ratio`, `cpu_ratio`: of each run, their median and interval}. theirs: the reference's costs of a cell around it."""
    names = {"ratio": ("seconds_per_cell", "seconds"), "cpu_ratio": ("cpu_per_cell", "cpu_seconds")}
    found = {}
    for name, (of_cell, of_run) in names.items():
        pairs = [(a[of_cell], b[of_run] / b["cells"]) for a, b in zip(theirs, mine, strict=True)]
        found[name] = {"each": [a / b for a, b in pairs], **ratio(*zip(*pairs, strict=True))._asdict()}
    return found
