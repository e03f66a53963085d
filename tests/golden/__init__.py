"""Cells whose keys, recipes, rows and texts stand still: tests/test_golden.py.

Whatever this needs of the package is imported here, and through the tests' own helpers. See `python -m tests.golden`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from blip2sweep.commands.run import run_sweep
from blip2sweep.planning.packs import make_packs, read_pack, write_packs
from blip2sweep.planning.plan import Plan, PlannedJob, make_plan
from blip2sweep.results.journal import Journal
from blip2sweep.workers.run_cell import run_cell
from blip2sweep.workers.signals import Stop, Stopped
from blip2sweep.workers.worker import run_pack
from tests import composing
from tests.checkpoints import believe, t5_config, write_t5
from tests.command_line import cache
from tests.composing import chain

USER_CACHE = cache.USER  # the variable that names the user's cache folder
START = "golden"  # of chains: the real one holds the versions of libraries
WEIGHTS = "0" * 64  # the small T5's fingerprint: what transformers writes beside its weights names a version


def sha(data: Any) -> str:
    """sha256 of the JSON; by itself, so that the package's own spelling of a value is held still too."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def plan(words: Sequence[str], model: dict[str, Any] | None = None) -> Plan:
    """The plan of a command's overrides. model: a config in the place of the model's."""
    return make_plan(_jobs(words, model), composing.Ledger(Path("/nonexistent")).refresh())


def _jobs(words: Sequence[str], model: dict[str, Any] | None) -> list[PlannedJob]:
    jobs = composing.jobs(*words)
    return [PlannedJob(j.overrides, {**j.config, "model": model}) for j in jobs] if model else jobs


def sweep(commands: Sequence[tuple[Sequence[str], dict[str, Any] | None]]) -> Plan:
    """Run commands of one cell each as one sweep, as a worker on a CPU does, but in this process; and make the tables."""
    threads = torch.get_num_threads()
    try:
        return run_sweep([j for words, model in commands for j in _jobs(words, model)], _here).plan
    finally:
        torch.set_num_threads(threads)


def _here(made: Plan, own: Any, output_dir: Path) -> bool:
    packs, told = make_packs([c.job() for c in made.todo], 1), {**own.settings, "device": "cpu", "threads": 1}
    paths = write_packs(packs, own.folder(output_dir), own.name, "0" * 8, output_dir, told)
    own.write(output_dir)
    with closing(Journal(output_dir)) as journal:
        assert run_pack(read_pack(paths[0]), journal) == 0
    return True


def facts(cell: Any, fixed: bool) -> dict[str, Any]:
    """What is frozen of a planned cell. fixed: as if its weights had the fingerprint WEIGHTS."""
    cell = replace(cell, model=replace(cell.model, fingerprint=WEIGHTS)) if fixed else cell
    job, keys = cell.job(), chain(START, cell.recipe, cell.model.anatomy.stages)
    of_stages = {"vision": keys.keys[:-1], "bridge": [keys.output], "language": [keys.language]}
    return {
        "key": cell.key,
        "baseline": job["baseline"],
        "recipe_hash": cell.recipe.hash,
        "chain": {stage: " ".join(k[:12] for k in found) for stage, found in of_stages.items()},
        "identity": cell.identity,
        "identity_sha256": sha(cell.identity),
        "job": {f: sha(job[f])[:12] for f in ("recipe", "calibration", "generation")},
        "job_fields": " ".join(job),
        "columns": cell.columns(),
    }


def t5_model(folder: Path) -> dict[str, Any]:
    """The config of a small T5 whose weights, in `folder`, are the same on every machine: whole numbers times a power of two."""
    path, numbers = write_t5(folder) / "model.safetensors", np.random.default_rng(0)
    tensors = {name: _rounded(t, numbers) for name, t in sorted(load_file(path).items())}
    save_file(tensors, path, metadata={"format": "pt"})
    model = {**t5_config(), "path": str(folder)}
    believe(folder, model)  # asking whether it loads takes a process of its own, and the sweep loads it
    return model


def _rounded(tensor: Any, numbers: np.random.Generator) -> Any:
    """Matrices: random, about as large as they were. Vectors: ones where they scale, noughts where they are added."""
    if tensor.ndim == 1:
        return np.full_like(tensor, float(tensor.mean() > 0.5))
    step = 2.0 ** (round(float(np.log2(np.abs(tensor).mean() + 1e-9))) - 6)
    return (numbers.integers(-127, 128, tensor.shape) * step).astype(np.float32)


def ends(cell: Any, output_dir: Path) -> None:
    """Write the lines of an attempt that fails, and of one that is given up because the job is to end."""

    def fail(job: dict[str, Any]) -> Any:
        raise RuntimeError("told to fail")

    pack, stop = {"output_dir": str(output_dir), "sweep": "s", "run": "r"}, Stop()
    with closing(Journal(output_dir)) as journal:
        run_cell(cell.job(), fail, journal, pack, stop)
        stop.now, stop.reason = True, "preempted"
        with suppress(Stopped):
            run_cell(cell.job(), fail, journal, pack, stop)
