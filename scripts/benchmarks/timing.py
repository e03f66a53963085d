"""The reference timed in processes of its own: with its own threads and memory, at its best setting.

As a program it reads a JSON line a cell and answers with a line; `Reference` is the other end of it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from blip2sweep.models.anatomy import anatomy
from blip2sweep.planning.cell import Cell
from blip2sweep.recipe.compact import expand
from blip2sweep.tasks import load_task
from blip2sweep.tasks.sample import Sample
from scripts.benchmarks import reference
from scripts.benchmarks.bound import Costs, costs
from scripts.benchmarks.ours import ROOT, Setting, cpu_seconds

TRIAL = 8  # images


class Timed(NamedTuple):
    """One cell of the reference. images: on how many of them; generating is what grows with them."""

    cell: Cell
    images: int
    texts: list[str]
    steps: dict[str, float]
    cpu_seconds: float
    peak_memory_bytes: int


def layers(given: Setting, cell: Cell) -> dict[str, tuple[str, int]]:
    """{module path: (method, bits)} as the reference takes it."""
    recipe = expand(cell.job()["recipe"], anatomy(given.model))
    return {path: (s.weights.method, s.weights.num_bits) for path, s in recipe.schemes.items()}


class Reference:
    """A process that runs cells of the reference. As a context it ends with it."""

    def __init__(self, given: Setting, env: dict[str, str]) -> None:
        self.given = given
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmarks.timing"], cwd=ROOT, env={**os.environ, **env},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(self, cell: Cell, images: int | None, score: bool) -> Timed:
        """The cell on the first `images` images (all of them: null)."""
        samples = load_task(self.given.task).samples[:images]
        references = [s.references for s in samples]
        answer = self._ask(samples, recipe=layers(self.given, cell), references=references, score=score)
        return Timed(cell, len(samples), **answer)

    def stages(self, images: int | None) -> Costs:
        """What the model's stages cost (bound.costs)."""
        return dict(self._ask(load_task(self.given.task).samples[:images]))

    def _ask(self, samples: Sequence[Sample], **more: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        given = self.given
        asked = {
            "folder": str(given.folder), "images": [str(s.image) for s in samples], "device": given.device,
            "dtype": given.model["dtype"], "new_tokens": given.new_tokens, "text": given.text, **more,
        }  # fmt: skip
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the reference's process ended with code {self._process.wait()}")
        return dict(json.loads(line))

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def ways(device: str) -> list[dict[str, str]]:
    """Environments to try: at batch 1 more threads may cost more than they give, and so may waiting threads that sleep.
    One that is set by whoever runs the benchmark is kept."""
    cores = len(os.sched_getaffinity(0))
    if device == "cuda" or cores == 1 or "OMP_NUM_THREADS" in os.environ:
        return [{}]
    every = {"OMP_NUM_THREADS": str(cores)}
    return [{"OMP_NUM_THREADS": "1"}, every, {**every, "OMP_WAIT_POLICY": "ACTIVE"}]


def fastest(given: Setting, cell: Cell) -> dict[str, str]:
    """The environment in which a few images of one cell take the reference least."""
    tried = ways(given.device)
    if len(tried) == 1:
        return tried[0]
    seconds = []
    for env in tried:
        with Reference(given, env) as run:
            seconds.append(run(cell, TRIAL, score=False).steps["generate"])
    return tried[seconds.index(min(seconds))]


def like_ours(given: Setting) -> dict[str, str]:
    """As many threads as our one worker has, asleep while they wait, so that processor seconds can be compared."""
    threads = os.environ.get("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    return {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"} if given.device == "cpu" else {}


def timed(given: Setting, cells: Sequence[Cell], images: int | None, env: dict[str, str]) -> list[Timed]:
    """Cells one after another in one process."""
    if not cells:
        return []
    with Reference(given, env) as run:
        return [run(cell, images, given.score) for cell in cells]


def timed_stages(given: Setting, env: dict[str, str], rounds: int) -> list[Costs]:
    """Rounds of `bound.costs` in one process, after one that warms it up."""
    with Reference(given, env) as run:
        return [run.stages(None) for _ in range(rounds + 1)][1:]


# ---- the process


def answer(asked: dict[str, Any]) -> Mapping[str, Any]:
    """The cell that a line asks for, or the costs of stages where it names no recipe. Imports are done before the first
    line, and are not timed."""
    on_gpu, before = asked["device"] == "cuda", cpu_seconds()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    asked = {**asked, "folder": Path(asked["folder"]), "images": [Path(p) for p in asked["images"]]}
    if "recipe" not in asked:
        return costs(**asked)
    texts, steps = reference.cell(**asked)
    used = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"texts": texts, "steps": steps, "cpu_seconds": cpu_seconds() - before, "peak_memory_bytes": used}


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
