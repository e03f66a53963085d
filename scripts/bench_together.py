"""Processor seconds of a grid's cells in one worker: each alone, and cells of one language recipe answered together.

    OMP_NUM_THREADS=1 python scripts/bench_together.py --model tiny --images 64
    OMP_NUM_THREADS=1 python scripts/bench_together.py --model tiny --images 64 --task vqa
    OMP_NUM_THREADS=1 python scripts/bench_together.py --model mid --images 32 --every 4 --rounds 1

Both ways run in turns, in random order, in one process, each with a back end of its own whose model is loaded before. Neither
scores. language: of the language model, by the cells' own columns, which count processor seconds here. differ: texts, and
likelihoods. Of part_wise every fourth cell has one language recipe.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout, installed or not

import torch

from blip2sweep.backends.backend import Answered
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.recipe.chain import Prefixes
from blip2sweep.wire.pack import CellJob
from scripts.benchmarks.grids import grid
from scripts.benchmarks.ours import planned, setting

LANGUAGE = ("seconds_language", "seconds_likelihood")


class Ran(NamedTuple):
    """seconds: of the processor. language: of the cells' columns."""

    seconds: float
    language: float
    answers: Sequence[Answered]


def run(jobs: Sequence[CellJob], alone: bool) -> Ran:
    backend = TorchBackend({"device": "cpu"})
    backend.plain(jobs[0])
    backend.expect(jobs)
    backend.together.ended = alone
    start = time.process_time()
    answers = [backend(job) for job in jobs]
    seconds = time.process_time() - start
    columns = [a.cost.get(name) for a in answers for name in LANGUAGE]
    language = sum(seconds for seconds in columns if isinstance(seconds, float))
    return Ran(seconds, language, answers)


def differ(one: Sequence[Answered], other: Sequence[Answered]) -> str:
    """How many texts differ, and the most that a likelihood does."""
    texts, apart = 0, 0.0
    for a, b in zip(one, other, strict=True):
        texts += sum(x != y for x, y in zip(a.predictions.text or (), b.predictions.text or (), strict=True))
        pairs = zip(a.predictions.nll_sum or (), b.predictions.nll_sum or (), strict=True)
        apart = max([apart, *(abs(x - y) for x, y in pairs if x is not None and y is not None)])
    return f"{texts}, {apart:.0e}"


def line(args: argparse.Namespace, jobs: Sequence[CellJob]) -> str:
    """A line of the table."""
    ran: dict[bool, list[Ran]] = {True: [], False: []}
    for _ in range(args.rounds):
        for alone in random.sample((True, False), 2):
            ran[alone].append(run(jobs, alone))
    pairs = list(zip(ran[True], ran[False], strict=True))
    told = [args.model, f"{args.task}, {args.images}", str(len(jobs))]
    for name in ("seconds", "language"):
        before, after = (statistics.median(getattr(one, name) for one in ran[alone]) for alone in (True, False))
        ratio = statistics.median(getattr(a, name) / getattr(b, name) for a, b in pairs)
        told += [f"{before:.2f} → {after:.2f}", f"{ratio:.2f}"]
    return f"| {' | '.join([*told, differ(*(one.answers for one in pairs[0]))])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "tiny-llava", "mid"), default="tiny")
    parser.add_argument("--task", choices=("caption", "vqa"), default="caption", help="vqa: three questions an image")
    parser.add_argument("--grid", choices=("part_wise", "role_wise"), default="part_wise")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--every", type=int, default=1, help="which cells of the grid: every n-th")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    args.nll = 1
    torch.set_num_threads(1)
    print(
        "| model | task, images | cells | CPU seconds | ratio | language | ratio | differ |\n|---|---|---|---|---|---|---|---|"
    )
    by_processor = mock.patch.object(time, "perf_counter", time.process_time)  # what columns of cells are measured by
    with tempfile.TemporaryDirectory() as folder, by_processor:
        given = setting(args, Path(folder))
        plan = planned(given, grid(args.grid)[args.every - 1 :: args.every], Path(folder) / "outputs")
        jobs = sorted((cell.job() for cell in plan.cells.values()), key=Prefixes())
        print(line(args, jobs))


if __name__ == "__main__":
    main()
