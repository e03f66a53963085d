"""Packs: the cells that one worker process runs, and the files that hold them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from blip2sweep.canonical import canonical_json
from blip2sweep.console.remarks import remark
from blip2sweep.errors import UserError
from blip2sweep.files import read_json, write_json
from blip2sweep.recipe.chain import Prefixes
from blip2sweep.recipe.trained import training_name
from blip2sweep.wire.launcher import Launcher
from blip2sweep.wire.pack import CellJob, JsonObject, Pack, PackFile, Settings, pack_of

PACKS_PER_SLOT = 4  # so that a slot which ends early finds another pack
START_SECONDS = 60.0  # a worker starts and loads its model in about this time; a pack should have as much work


def make_packs(jobs: Sequence[CellJob], count: int, seconds: dict[str, float] | None = None) -> list[list[CellJob]]:
    """About `count` packs of about equal cost. The cells of a pack have one back end, and cells that share work (model,
    task, then parts in order) stay together.

    seconds: {key: expected cost}; without it all cells cost the same. There are fewer packs when there are fewer cells,
    and more when there are more back ends.
    """
    ordered = sorted(jobs, key=Prefixes())
    cost_of = seconds or {j["key"]: 1.0 for j in ordered}
    total = sum(cost_of.get(j["key"], 1.0) for j in ordered)
    packs: list[list[CellJob]] = []
    for own_jobs in by_backend(ordered):
        costs = [cost_of.get(j["key"], 1.0) for j in own_jobs]
        share_of_packs = max(1, min(round(count * sum(costs) / total) if total else count, len(own_jobs)))
        packs += [pack for pack in _slices(own_jobs, costs, share_of_packs) if pack]
    return packs


def by_backend(jobs: Iterable[CellJob]) -> list[list[CellJob]]:
    """A list of jobs for each back end, in their order. A worker has one back end."""
    found: dict[str, list[CellJob]] = {}
    for job in jobs:
        found.setdefault(canonical_json(job.get("backend")), []).append(job)
    return list(found.values())


def share(pack: Pack, part: str = "0/1") -> Pack:
    """The share of a pack that one task of a job runs. part: `rank/tasks`, such as `0/4`. Shares are runs of
    neighbours, because these share work, of about equal cost."""
    rank, tasks = (int(x) for x in part.split("/"))
    costs = pack["seconds"] or [1.0] * len(pack["cells"])
    return {**pack, "part": part, "cells": _slices(pack["cells"], costs, tasks)[rank]}


def _slices(ordered: Sequence[CellJob], costs: Sequence[float], count: int) -> list[list[CellJob]]:
    """`count` runs of neighbours of about equal cost. Some are empty when there are few jobs. Those that share what is
    trained for them stay together: otherwise two processes would train it."""
    slices: list[list[CellJob]] = [[] for _ in range(count)]
    size, spent = sum(costs) / count, 0.0
    for _, own in groupby(zip(ordered, costs, strict=True), lambda pair: _trained(pair[0])):
        jobs, each = zip(*own, strict=True)
        cost = sum(each)
        slices[min(count - 1, int((spent + cost / 2) / size))] += jobs
        spent += cost
    return slices


def _trained(job: CellJob) -> str:
    """The name of what is trained for a job; its key where nothing is."""
    return training_name(job["recipe"], job["columns"]) or job["key"]


def pack_count(total: float, slots: int, pack_minutes: float, max_packs: int | None, cells: int) -> int:
    """How many packs `total` seconds of work make: PACKS_PER_SLOT for each slot, none above `pack_minutes`, none below
    START_SECONDS."""
    longest = pack_minutes * 60
    if longest <= 0:
        return min(cells, max_packs or cells)
    target = min(longest, max(total / (PACKS_PER_SLOT * slots), min(START_SECONDS, longest)))
    return max(1, min(math.ceil(total / target), cells, max_packs or cells))


def slurm_packs(jobs: Sequence[CellJob], launcher: Launcher, seconds: dict[str, float]) -> list[list[CellJob]]:
    """The jobs in packs for Slurm, each with work for all tasks of its job. seconds: {key: expected cost}."""
    slots, tasks = max(1, launcher.get("array_parallelism") or 1), launcher.get("tasks_per_node") or 1
    minutes = min(launcher.get("pack_minutes") or 0, launcher.get("timeout_min") or 60)
    cells = max(1, len(jobs) // tasks)
    count = pack_count(sum(seconds.values()) / tasks, slots, minutes, launcher.get("max_packs"), cells)
    return make_packs(jobs, count, seconds)


def make_pack(
    jobs: Sequence[CellJob], sweep: str, run: str, output_dir: Path, settings: Settings, index: int = 0,
    seconds: dict[str, float] | None = None,
) -> Pack:  # fmt: skip
    """A pack of jobs that share their back end, which the settings name for the worker.

    run: the id of this launch of the sweep; run and index name the pack. seconds: {key: expected cost}.
    """
    return {
        "sweep": sweep, "run": run, "index": index, "output_dir": str(output_dir.resolve()),
        "settings": _with_backend(settings, jobs), "cells": list(jobs),
        "seconds": [seconds[j["key"]] for j in jobs] if seconds else None,
    }  # fmt: skip


def _with_backend(settings: Settings, jobs: Sequence[CellJob]) -> Settings:
    choice = jobs[0].get("backend") if jobs else None
    return {**settings, "backend": choice} if choice else settings


def pack_data(
    jobs: Sequence[CellJob], sweep: str, run: str, output_dir: Path, settings: Settings, index: int = 0,
    seconds: dict[str, float] | None = None,
) -> PackFile:  # fmt: skip
    """The content of a pack's file: `make_pack` with each model and each task written once."""
    pack = make_pack(jobs, sweep, run, output_dir, settings, index, seconds)
    models = {canonical_json(j["model"]): j["model"] for j in jobs}
    tasks = {canonical_json(j["task"]): j["task"] for j in jobs}
    of_model, of_task = ({name: i for i, name in enumerate(distinct)} for distinct in (models, tasks))
    cells: list[JsonObject] = [
        {**j, "model": of_model[canonical_json(j["model"])], "task": of_task[canonical_json(j["task"])]} for j in jobs
    ]
    return {
        "sweep": sweep, "run": run, "index": index, "output_dir": pack["output_dir"], "settings": pack["settings"],
        "models": list(models.values()), "tasks": list(tasks.values()), "cells": cells, "seconds": pack["seconds"],
    }  # fmt: skip


def pack_path(folder: Path, run: str, index: int) -> Path:
    """The path of a pack's file. folder: the sweep's."""
    return folder / "packs" / f"{run}-{index}.json"


def write_packs(
    packs: Sequence[Sequence[CellJob]], folder: Path, sweep: str, run: str, output_dir: Path, settings: Settings,
    seconds: dict[str, float] | None = None,
) -> list[Path]:  # fmt: skip
    """Write the packs of one launch. Returns their paths, in order. Raises UserError when the disk refuses."""
    paths = [pack_path(folder, run, i) for i in range(len(packs))]
    launched = {j["key"] for jobs in packs for j in jobs}
    for i, (path, jobs) in enumerate(zip(paths, packs, strict=True)):
        write_json(path, pack_data(jobs, sweep, run, output_dir, _of(jobs, settings, launched), i, seconds))
    return paths


def _of(jobs: Sequence[CellJob], settings: Settings, launched: Collection[str]) -> Settings:
    """The settings with what they say of single cells cut to these jobs. launched: the keys of all packs."""
    keys = {j["key"] for j in jobs}
    own: Settings = {**settings, "rerun": {k: v for k, v in settings.get("rerun", {}).items() if k in keys}}
    if "latency" in settings:
        own["latency"] = [k for k in settings["latency"] if k in keys]
    if "stop" in settings:
        images = settings["stop"]["images"]
        there = {k: n for k, n in images.items() if k in keys}
        compared = sorted({j["baseline"] for j in jobs if j["key"] in there}.intersection(launched))
        own["stop"] = {**settings["stop"], "images": there, "launched": compared}
    return own


def read_pack(path: Path) -> Pack:
    """A pack, with models and tasks put back into its cells. Raises UserError for a file that holds no pack."""
    return pack_of(read_json(path), str(path))


def whole_packs(paths: Iterable[Path]) -> Iterator[Pack]:
    """The packs of these files. A damaged one is named and left out."""
    for path in paths:
        try:
            yield read_pack(path)
        except UserError as error:
            remark(f"{error}; its cells are left out")


def sweep_jobs(folder: Path) -> dict[str, CellJob]:
    """{key: job} from all packs that a sweep ever had; the newest counts."""
    packs = sorted((folder / "packs").glob("*.json"), key=lambda p: p.stat().st_mtime)
    return {job["key"]: job for pack in whole_packs(packs) for job in pack["cells"]}
