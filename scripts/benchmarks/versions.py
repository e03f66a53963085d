"""This version against another one: whole runs in turn, and what they say together."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.benchmarks.ours import ROOT, Setting, setting
from scripts.benchmarks.pairs import BEFORE, NEAR, NOW, Ratio, Same, order, ratio, run, same, tree
from scripts.benchmarks.report import in_words, machine
from scripts.benchmarks.stages import NAMES
from scripts.benchmarks.stages import lines as stage_lines

Runs = Mapping[str, Sequence[Mapping[str, Any]]]  # {side: its runs}
OF = {"seconds": "seconds", "cpu_seconds": "processor seconds"}
SEEN = 0.005  # of all processor seconds: a stage with less is not compared


def against(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run both versions in turn. `disagreement`: what they said otherwise, where float32 says all the same."""
    given = setting(args, folder)
    trees = {BEFORE: tree(Path(args.against).resolve(), folder / BEFORE), NOW: tree(ROOT, folder / NOW)}
    runs: dict[str, list[dict[str, Any]]] = {BEFORE: [], NOW: []}
    for i, side in enumerate(order(args.pairs)):
        asked = {"grid": args.grid, "cells": args.cells, "workers": args.workers}
        asked |= {"stop": args.stop if side == NOW else None}
        runs[side].append(run(trees[side], given, asked, folder / f"outputs-{i}"))
    return found(args, given, runs)


def found(args: argparse.Namespace, given: Setting, runs: Runs) -> dict[str, Any]:
    said = [one["said"] for side in (BEFORE, NOW) for one in runs[side]]
    alike = [same(said[0], other) for other in said[1:]]
    worst = max(alike, key=lambda s: (s.wrong, s.differing, s.nll))
    first = runs[NOW][0]
    return {
        "model": args.model, "grid": args.grid, "task": args.task, "cells": first["cells"], "pairs": args.pairs,
        "machine": machine(given.device), "asked_images": first["asked_images"], "same": worst._asdict(),
        **{name: _both(runs, lambda one, n=name: one[n]) for name in OF},
        "by_stage": by_stage(runs), "stages": _median(runs[NOW])["stages"],
        "disagreement": disagreement(given.model["dtype"], worst),
    }  # fmt: skip


def by_stage(runs: Runs) -> dict[str, dict[str, Any]]:
    """{stage: seconds or processor seconds of both sides, and their ratio}, as the table of a run counts them."""
    table = runs[NOW][0]["stages"]
    whole = statistics.median(one["cpu_seconds"] for one in runs[BEFORE])
    both = {name: _both(runs, lambda one, n=name: one["stages"]["rows"].get(n, {}).get(table["by"], 0.0))
            for name in table["rows"]}  # fmt: skip
    return {name: row for name, row in both.items() if min(row[BEFORE], row[NOW]) > SEEN * whole}


def _both(runs: Runs, of: Any) -> dict[str, Any]:
    values = {side: [of(one) for one in runs[side]] for side in (BEFORE, NOW)}
    medians = {side: statistics.median(v) for side, v in values.items()}
    compared = ratio(*values.values()) if all(min(v) > 0 for v in values.values()) else Ratio(1.0, None, None)
    return {**medians, **compared._asdict(), "verdict": compared.verdict, "each": values}


def _median(runs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return sorted(runs, key=lambda one: one["seconds"])[len(runs) // 2]


def disagreement(dtype: str, worst: Same) -> str | None:
    """What is wrong with predictions. In half precision the order of summing may change a text."""
    if worst.missing:
        return f"{worst.missing} cells are of one version alone"
    if not worst.wrong or dtype != "float32":
        return None
    return f"{worst.differing} of {worst.texts} texts differ in float32; likelihoods by {worst.nll:.1e}, at most {NEAR:g} is right"


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """The comparison in words."""
    yield (
        f"{told['model']}, {told['grid']}, {told['task']}: {told['cells']} cells; {told['pairs']} pairs of whole runs in turn, "
        f"before and now; {told['machine']}"
    )
    for name, words in OF.items():
        yield f"  {words:18} {_line(told[name])}"
    if told["asked_images"] < 1:
        yield f"  now with cells that stop early: {100 * told['asked_images']:.0f} % of the images were evaluated"
    alike = told["same"]
    yield f"  predictions: {alike['differing']} of {alike['texts']} texts differ; likelihoods by at most {alike['nll']:.1e}"
    yield f"  by stage, medians of {'processor seconds' if told['stages']['by'] == 'cpu' else 'seconds'}:"
    for name, row in told["by_stage"].items():
        yield f"    {NAMES.get(name, name):16} {_line(row)}"
    yield from stage_lines(told["stages"])


def _line(row: Mapping[str, Any]) -> str:
    return f"{row[BEFORE]:8.2f} before, {row[NOW]:8.2f} now: {in_words(dict(row))}: {row['verdict']}"
