"""`blip2sweep plan`: what a sweep would do. It writes and submits nothing."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from blip2sweep.console.bar import verbose
from blip2sweep.console.printing import cell as shown_cell
from blip2sweep.console.printing import console, say, say_text
from blip2sweep.console.remarks import many
from blip2sweep.errors import UserError
from blip2sweep.machine.devices import visible_gpus
from blip2sweep.planning.cell import Cell
from blip2sweep.planning.costs import expected_seconds
from blip2sweep.planning.packs import START_SECONDS, make_packs, slurm_packs
from blip2sweep.planning.plan import Plan
from blip2sweep.planning.timing_costs import with_timing
from blip2sweep.results.ledger import Ledger
from blip2sweep.running.status import duration
from blip2sweep.wire.launcher import Launcher
from blip2sweep.wire.pack import CellJob

NUMBER = re.compile(r"\d+")
ONE_LINE = 100_000  # in a pipe a cell is one line, for grep
FIRST, LAST = 32, 8  # cells that a plan of more lists
PLAN_SECONDS = 20.0  # that a plan waits for Slurm: without slurm.conf its commands try for a minute


def announce(plan: Plan) -> None:
    """Print how many cells there are, and which are skipped and why."""
    if verbose():
        say(*plan.remarks, *(f"  {line}" for line in skipped(plan)), err=True)


def skipped(plan: Plan) -> list[str]:
    """A line for each reason, with the first that is skipped for it. Reasons that differ in numbers alone are one."""
    alike: dict[str, list[int]] = {}
    for i, reason in plan.reasons.items():
        alike.setdefault(NUMBER.sub("#", reason), []).append(i)
    return [
        f"skipped{f' {len(own)}, the first is' if len(own) > 1 else ''}: {' '.join(plan.jobs[own[0]].overrides)}: "
        f"{plan.reasons[own[0]]}"
        for own in alike.values()
    ]


def shared_overrides(plan: Plan) -> list[str]:
    """What every one of several jobs has, in order."""
    first, *others = [job.overrides for job in plan.jobs] or [()]
    every = set(first).intersection(*others) if others else set()
    return [word for word in first if word in every]


def describe(plan: Plan, every: bool = False) -> None:
    """Print the cells, what each means, and what is skipped and why. every: also the cells in the middle of many."""
    screen = console(soft_wrap=True)
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        screen.width = ONE_LINE
    shared = shared_overrides(plan)
    if shared:
        say(f"every cell that is asked for: {' '.join(shared)}")
    cells, left = list(plan.cells.items()), 0 if every else max(0, len(plan.cells) - FIRST - LAST)
    screen.print(_table(plan, cells[:FIRST] if left else cells, shared))
    if left:
        say(f"… {left} more cells; `blip2sweep plan --all-cells …` lists them …")
        screen.print(_table(plan, cells[-LAST:], shared))
    for line in [*skipped(plan), *plan.remarks]:
        say(line)


def _table(plan: Plan, cells: Sequence[tuple[str, Cell]], shared: Sequence[str]) -> Table:
    names, added = asked_by(plan, shared), added_by_itself(plan)
    table = Table(box=None, pad_edge=False)
    for column in ("key", "state", "recipe", "task", "overrides"):
        table.add_column(column, overflow="fold", no_wrap=column in ("key", "state"))
    for key, cell in cells:
        told = names.get(key) or added.get(key, "")
        table.add_row(
            *map(
                shown_cell,
                (key, "done" if key in plan.done else "to run", cell.columns()["recipe"], cell.task.name, told),
            )
        )
    return table


def asked_by(plan: Plan, shared: Sequence[str] = ()) -> dict[str | None, str]:
    """{key: the overrides of the first job that asks for the cell}, without those that are shared."""
    names: dict[str | None, str] = {}
    for key, job in zip(plan.keys, plan.jobs, strict=True):
        names.setdefault(key, " ".join(word for word in job.overrides if word not in shared))
    return names


def added_by_itself(plan: Plan) -> dict[str, str]:
    """{key: `baseline` or `control`} of the cells that a plan compares others with."""
    return {**dict.fromkeys(plan.controls, "control"), **dict.fromkeys(plan.baselines, "baseline")}


def describe_local(plan: Plan, output_dir: Path, workers: int | None, processes: int) -> None:
    packs, seconds = local_packs(plan, output_dir, workers, processes)
    _packs(packs, seconds, "worker", processes if visible_gpus() else 0)


def local_packs(
    plan: Plan, output_dir: Path, workers: int | None, processes: int
) -> tuple[list[list[CellJob]], dict[str, float]]:
    """(the cells of each worker on this machine, {key: expected seconds})."""
    from blip2sweep.running.local import worker_gpus

    jobs = [c.job() for c in plan.to_launch]
    count = workers or max(1, len(worker_gpus((j["model"] for j in jobs), workers, processes)))
    return make_packs(jobs, count), _expected(plan, jobs, output_dir, processes)


def describe_slurm(plan: Plan, output_dir: Path, launcher: Launcher) -> None:
    from blip2sweep.slurm.settings import gpus_of
    from blip2sweep.slurm.submit import sbatch_script, throttled

    jobs = [c.job() for c in plan.to_launch]
    if not jobs:
        say("no sbatch script: nothing is to run")
        return
    seconds = _expected(plan, jobs, output_dir, launcher.get("processes_per_cell") or 1)
    packs = slurm_packs(jobs, launcher, seconds)
    gpus = gpus_of(launcher)
    _packs(packs, seconds, "pack", 1 if gpus is None else gpus, launcher.get("tasks_per_node") or 1)
    size = _array_size(launcher)
    arrays = f"; {math.ceil(len(packs) / size)} arrays of at most {size}, the first" if len(packs) > size else ""
    say_text(
        f"\nsbatch script (one array element a pack{arrays}):\n\n"
        + sbatch_script(throttled(launcher, len(packs), size), min(size, len(packs)), output_dir / "logs")
    )


def _array_size(launcher: Launcher) -> int:
    """MaxArraySize. Where Slurm does not say it, that is said, and its default is taken."""
    from blip2sweep.slurm.submit import ARRAY_SIZE, array_size

    try:
        return array_size(launcher, PLAN_SECONDS)
    except UserError as error:
        reason = str(error).partition("; right:")[0]
        say("", f"{reason}. The script is what a sweep would submit on a login node; arrays are taken to hold {ARRAY_SIZE} "
            "packs, Slurm's default")  # fmt: skip
        return ARRAY_SIZE


def _expected(plan: Plan, jobs: list[CellJob], output_dir: Path, processes: int) -> dict[str, float]:
    """{key: seconds}, those of timing included."""
    ledger = Ledger(output_dir).refresh()
    cache = next((j.config.get("cache") for j in plan.jobs), None)  # one for all
    seconds = expected_seconds(jobs, ledger, processes, cache)
    return with_timing(seconds, jobs, ledger, plan.timed.keys if plan.timed else (), plan.done)


def _packs(packs: list[list[CellJob]], seconds: dict[str, float], word: str, gpus: int = 1, tasks: int = 1) -> None:
    """gpus, tasks: for the job of each pack; without GPUs the hours are of the jobs. Its tasks share its cells."""
    costs = [sum(seconds[j["key"]] for j in pack) / tasks for pack in packs]
    if not packs:
        return
    total = (gpus or 1) * (sum(costs) + START_SECONDS * len(packs)) / 3600
    least, most = min(map(len, packs)), max(map(len, packs))
    cells = many(most, "cell") if least == most else f"{least} to {most} cells"
    hours = "GPU hours" if gpus else f"{word} hours"
    say(f"{many(len(packs), word)} of {cells}, the longest about "
          f"{duration(max(costs))}; about {total:.2f} {hours}, starting included (measured where the ledger knows, else a guess)")  # fmt: skip
