"""Packs: the cells one worker process runs, and the files they travel in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from blip2sweep.canonical import canonical_json
from blip2sweep.console.remarks import remark
from blip2sweep.errors import UserError
from blip2sweep.files import read_json, write_json
from blip2sweep.recipe.chain import Prefixes

PACKS_PER_SLOT = 4  # so that slots which end early find more to do
START_SECONDS = 60.0  # a worker starts and loads its model in about that: packs of less work are not worth a job

Job = dict[str, Any]  # a cell as `Cell.job()` gives it


def make_packs(jobs: Sequence[Job], count: int, seconds: dict[str, float] | None = None) -> list[list[Job]]:
    """At most `count` packs of about equal cost; cells that share work (model, task, then parts in order) stay together.

    seconds: what each key is expected to cost; equal where nothing is given.
    """
    ordered = sorted(jobs, key=Prefixes())
    costs = [(seconds or {}).get(j["key"], 1.0) for j in ordered]
    made = _slices(ordered, costs, max(1, min(count, len(ordered))))
    return [pack for pack in made if pack]


def share(pack: dict[str, Any], part: str = "0/1") -> dict[str, Any]:
    """The pack, or of several tasks in one job the share of this one: `0/4`. Neighbours share work, so that each gets a
    run of them, of about equal cost."""
    rank, tasks = (int(x) for x in part.split("/"))
    costs = pack.get("seconds") or [1.0] * len(pack["cells"])
    return {**pack, "part": part, "cells": _slices(pack["cells"], costs, tasks)[rank]}


def _slices(ordered: Sequence[Job], costs: Sequence[float], count: int) -> list[list[Job]]:
    """`count` runs of neighbours, of about equal cost; some are empty where there are few."""
    slices: list[list[Job]] = [[] for _ in range(count)]
    size, spent = sum(costs) / count, 0.0
    for job, cost in zip(ordered, costs, strict=True):
        slices[min(count - 1, int((spent + cost / 2) / size))].append(job)
        spent += cost
    return slices


def pack_count(total: float, slots: int, pack_minutes: float, max_packs: int | None, cells: int) -> int:
    """How many packs `total` seconds of work make: four a slot, none longer than `pack_minutes`, none without much to do."""
    longest = pack_minutes * 60
    if longest <= 0:
        return min(cells, max_packs or cells)
    target = min(longest, max(total / (PACKS_PER_SLOT * slots), min(START_SECONDS, longest)))
    return max(1, min(math.ceil(total / target), cells, max_packs or cells))


def pack_data(
    jobs: Sequence[Job], sweep: str, run: str, output_dir: Path, settings: dict[str, Any], index: int = 0,
    seconds: dict[str, float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The JSON of a pack: settings, and cells with models and tasks said once.

    run: the id of this launch of the sweep; with index it names the pack. seconds: what each key is expected to cost.
    """
    models, tasks = _distinct(jobs, "model"), _distinct(jobs, "task")
    of_model = {canonical_json(m): i for i, m in enumerate(models)}
    of_task = {canonical_json(t): i for i, t in enumerate(tasks)}
    cells = [
        {**j, "model": of_model[canonical_json(j["model"])], "task": of_task[canonical_json(j["task"])]} for j in jobs
    ]
    return {
        "sweep": sweep, "run": run, "index": index, "output_dir": str(output_dir.resolve()), "settings": settings,
        "models": models, "tasks": tasks, "cells": cells,
        "seconds": [seconds[j["key"]] for j in jobs] if seconds else None,
    }  # fmt: skip


def _distinct(jobs: Sequence[Job], field: str) -> list[Any]:
    return list({canonical_json(j[field]): j[field] for j in jobs}.values())


def pack_path(folder: Path, run: str, index: int) -> Path:
    """Where a sweep's pack lies, in the sweep's folder."""
    return folder / "packs" / f"{run}-{index}.json"


def write_packs(
    packs: Sequence[Sequence[Job]], folder: Path, sweep: str, run: str, output_dir: Path, settings: dict[str, Any],
    seconds: dict[str, float] | None = None,
) -> list[Path]:  # fmt: skip
    """Write the packs of one launch; their paths, in order."""
    paths = [pack_path(folder, run, i) for i in range(len(packs))]
    for i, (path, jobs) in enumerate(zip(paths, packs, strict=True)):
        own = {k: v for k, v in settings.get("rerun", {}).items() if k in {j["key"] for j in jobs}}
        write_json(path, pack_data(jobs, sweep, run, output_dir, {**settings, "rerun": own}, i, seconds))
    return paths


def read_pack(path: Path) -> dict[str, Any]:
    """A pack with its models and tasks put back into the cells."""
    pack = read_json(path)
    try:
        for job in pack["cells"]:
            job["model"], job["task"] = pack["models"][job["model"]], pack["tasks"][job["task"]]
            job["key"], job["columns"], job["recipe"]  # what everybody takes for granted
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path}: not a pack ({error!r}); right: an unchanged copy") from error
    return dict(pack)


def whole_packs(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Packs as `read_pack` gives them; one that is damaged is named and left out."""
    for path in paths:
        try:
            yield read_pack(path)
        except UserError as error:
            remark(f"{error}; its cells are left out")


def sweep_jobs(folder: Path) -> dict[str, Job]:
    """{key: cell} of every pack a sweep ever had; the newest of each."""
    packs = sorted((folder / "packs").glob("*.json"), key=lambda p: p.stat().st_mtime)
    return {job["key"]: job for pack in whole_packs(packs) for job in pack["cells"]}
