"""What sharing is worth: a grid through blip2sweep against the published study's procedure, side by side, in one run.

    python scripts/benchmark.py --model tiny --grid part_wise            # also: --grid card | seed_grid
    python scripts/benchmark.py --model mid --grid part_wise --images 32
    python scripts/benchmark.py --model llava-mid --images 8     # 576 tokens an image, 27 cells: what sharing can save at most
    python scripts/benchmark.py --model blip2-opt-2.7b --grid seed_grid --images 1000 --reference-images 50   # one GPU
    … --json

The reference (scripts/benchmarks/reference.py) is timed on --reference-cells cells spread over the grid, half of them before
ours and half after, and scaled to the whole of it; on the first --reference-images images generating is scaled too, loading
and scoring are not. On a CPU it runs with one thread or all, with waiting threads asleep or spinning: as a trial of a few
images is fastest. Ours is timed as it runs: a worker process from its start, imports and loading included, to its last score.
For llava-mid the costs of its stages are measured besides, before and after ours: each as often as it must run is the bound of
what sharing can reach (scripts/benchmarks/bound.py). There neither side scores.
Ends with code 1 when predictions differ in float32, or in half precision elsewhere than at near-ties.
Needs torch and transformers; without Java and pycocoevalcap neither side scores, which the output says.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROUNDS = 2  # of the stages' costs, before and after ours
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout, installed or not

import torch

from scripts.benchmarks import bound
from scripts.benchmarks.grids import grid
from scripts.benchmarks.models import LLAVA
from scripts.benchmarks.ours import ours, planned, setting
from scripts.benchmarks.report import compared, judged, show, where
from scripts.benchmarks.timing import fastest, like_ours, timed, timed_stages


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "mid", LLAVA, "blip2-opt-2.7b"), default="tiny")
    parser.add_argument("--grid", choices=("card", "part_wise", "seed_grid", "role_wise"))
    parser.add_argument("--images", type=int, help="default: all 500 of tiny's, 8 of llava-mid's, else 32")
    parser.add_argument("--cells", type=int, help="of the grid; seed_grid has up to 1512, 60 by default")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--reference-cells", type=int, default=6, help="0: ours alone")
    parser.add_argument("--reference-images", type=int, help="the first so many; default: all")
    parser.add_argument(
        "--nll", type=int, help="references whose likelihood ours measures too; default: 1, of llava-mid 0"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    grid_of, nll_of = ("role_wise", 0) if args.model == LLAVA else ("card", 1)
    args.grid, args.nll = args.grid or grid_of, nll_of if args.nll is None else args.nll
    return args


def main() -> int:
    args = arguments()
    with tempfile.TemporaryDirectory(prefix="blip2sweep-benchmark-") as folder:
        given, output_dir = setting(args, Path(folder)), Path(folder) / "outputs"
        if given.device == "cuda":
            torch.cuda.empty_cache()  # of what the model was written with: the device is for those that are timed
        plan = planned(given, grid(args.grid, args.cells), output_dir)
        cells, count = list(plan.cells.values()), args.reference_cells
        chosen = [cells[i * len(cells) // count] for i in range(count)]
        bounded = args.model == LLAVA and bool(chosen)
        env = like_ours(given) if bounded else fastest(given, chosen[0]) if chosen else {}
        stages = timed_stages(given, env, ROUNDS) if bounded else []
        done = timed(given, chosen[: count // 2], args.reference_images, env)
        mine = {"cells": len(cells), **ours(given, plan, output_dir, args.workers)}
        done += timed(given, chosen[count // 2 :], args.reference_images, env)
        stages += timed_stages(given, env, ROUNDS) if bounded else []
        theirs = {"environment": where(env), **judged(given, done, output_dir)}
        found = compared(args, given, plan, mine, theirs)
        if bounded:
            a_cell = theirs["cpu_per_cell" if given.device == "cpu" else "seconds_per_cell"]
            found["bound"] = bound.against(bound.needed(given, plan), stages, found["images"], mine, a_cell)
    print(json.dumps(found)) if args.json else show(found)
    if found["disagreement"]:
        print(f"error: {found['disagreement']}", file=sys.stderr)
    return 1 if found["disagreement"] else 0


if __name__ == "__main__":
    sys.exit(main())
