"""What sharing is worth: a grid through blip2sweep against the published study's procedure, side by side, in one run.

    python scripts/benchmark.py --model tiny --grid part_wise            # also: --grid card | seed_grid
    python scripts/benchmark.py --model mid --grid part_wise --images 32
    python scripts/benchmark.py --model llava-mid --images 8     # 576 tokens an image, 27 cells: what sharing can save at most
    python scripts/benchmark.py --model blip2-opt-2.7b --grid seed_grid --images 1000 --reference-images 50   # one GPU
    python scripts/benchmark.py --model tiny --grid part_wise --runs 3 --stop known     # cells that stop when they are known
    python scripts/benchmark.py --model tiny --task vqa --grid part_wise --against ../before --pairs 3
    … --json

The reference (scripts/benchmarks/reference.py) is timed on --reference-cells cells spread over the grid, half of them before
ours and half after, and scaled to the whole of it; on the first --reference-images images generating is scaled too, loading
and scoring are not. On a CPU it runs with one thread or all, with waiting threads asleep or spinning: as a trial of a few
images is fastest. Ours is timed as it runs: a worker process from its start, imports and loading included, to its last score.
With --runs ours runs several times, each between cells of the reference, and the median of the ratios is told with an interval.
For llava-mid the costs of its stages are measured besides, before and after ours: each as often as it must run is the bound of
what sharing can reach (scripts/benchmarks/bound.py). There neither side scores.
A table says where the time goes by stage, and how many times that is what the arithmetic takes (scripts/benchmarks/stages.py):
what has to be computed once, in products of the same shapes on as many threads, measured right after.
With --against FOLDER, the checkout of another version, no reference runs: both versions do whole runs in turn, and a gain
inside the noise of their pairs is not claimed (scripts/benchmarks/pairs.py).
Ends with code 1 when predictions differ in float32, or in half precision elsewhere than at near-ties; with 2 for bad flags.
Needs torch and transformers; without Java and pycocoevalcap neither side scores captions, which the output says.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

CELLS = 6  # of the reference
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout, installed or not

from blip2sweep.errors import UserError
from scripts.benchmarks import report, versions
from scripts.benchmarks.models import LLAVA
from scripts.benchmarks.ours import knows_stopping
from scripts.benchmarks.turns import against_reference


class Parser(argparse.ArgumentParser):
    """Its errors are lines without the usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The flags, checked. Raises UserError."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "tiny-llava", "mid", LLAVA, "blip2-opt-2.7b"), default="tiny")
    parser.add_argument("--task", choices=("caption", "vqa"), default="caption", help="vqa: three questions an image")
    parser.add_argument("--grid", choices=("card", "part_wise", "seed_grid", "role_wise"))
    parser.add_argument("--images", type=int, help="default: all 500 of the shipped models', 8 of llava-mid's, else 32")
    parser.add_argument("--cells", type=int, help="of the grid; seed_grid has up to 1512, 60 by default")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--reference-cells", type=int, help=f"default: {CELLS} of captions; 0: ours alone")
    parser.add_argument("--reference-images", type=int, help="the first so many; default: all")
    parser.add_argument("--runs", type=int, help="of ours, between cells of the reference; default: 1")
    parser.add_argument("--stop", choices=("known",), help="evaluation.stop of our side")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="the checkout of another version")
    parser.add_argument("--pairs", type=int, help="of whole runs with --against; default: 3")
    parser.add_argument(
        "--nll", type=int, help="references whose likelihood ours measures too; default: 1, of llava-mid 0"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(words)
    check(args)
    of_roles = args.model in (LLAVA, "tiny-llava")
    defaults = {
        "grid": "role_wise" if of_roles else "card", "nll": 0 if args.model == LLAVA else 1, "runs": 1, "pairs": 3,
        "reference_cells": CELLS if args.task == "caption" and args.against is None else 0,
    }  # fmt: skip
    for name, value in defaults.items():
        setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
    return args


def check(args: argparse.Namespace) -> None:
    """Raise UserError for flags that would be ignored or cannot be followed."""
    for name in ("images", "cells", "workers", "runs", "pairs", "reference_images"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: right: 1 or more")
    if args.against is None and args.pairs is not None:
        raise UserError("--pairs: of versions; right: with --against FOLDER")
    if args.against is not None:
        for name in ("reference_cells", "reference_images", "runs"):
            if getattr(args, name) is not None:
                raise UserError(f"--{name.replace('_', '-')}: no reference runs with --against; right: without it")
        if not (args.against / "blip2sweep" / "workers" / "worker.py").is_file():
            raise UserError(f"--against {args.against}: no blip2sweep in it; right: the checkout of a version")
    if args.runs and args.reference_cells and args.reference_cells < args.runs:
        raise UserError(
            f"--runs {args.runs} --reference-cells {args.reference_cells}: right: a cell for each run, or 0"
        )
    if args.task == "vqa" and args.reference_cells:
        raise UserError("--reference-cells: the reference only captions; right: 0 with --task vqa")
    if args.stop and not knows_stopping():
        raise UserError(f"--stop {args.stop}: this version has no evaluation.stop; right: without --stop")


def main(words: list[str] | None = None) -> int:
    try:
        args = arguments(words)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="blip2sweep-benchmark-") as name:
        folder = Path(name).resolve()
        found = against_reference(args, folder) if args.against is None else versions.against(args, folder)
    lines = report.lines if args.against is None else versions.lines
    print(json.dumps(found) if args.json else "\n".join(lines(found)))
    if found["disagreement"]:
        print(f"error: {found['disagreement']}", file=sys.stderr)
    return 1 if found["disagreement"] else 0


if __name__ == "__main__":
    sys.exit(main())
