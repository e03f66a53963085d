"""The functions behind the Python API that run something, or say what would run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from blip2sweep import outside
from blip2sweep.commands.planned import SweepPlan, planned
from blip2sweep.commands.run import Outcome, plan_sweep, run_sweep
from blip2sweep.config.grid import expand
from blip2sweep.config.standalone import composer, explained
from blip2sweep.config.words import Overrides, with_output_dir, words_of
from blip2sweep.console import remarks
from blip2sweep.console.bar import telling
from blip2sweep.errors import UserError
from blip2sweep.machine.devices import devices_here
from blip2sweep.machine.processes import settle_user
from blip2sweep.metrics.statistics import forget_added
from blip2sweep.planning.plan import Plan, PlannedJob
from blip2sweep.planning.processes import checked_processes
from blip2sweep.results.latest import read_table
from blip2sweep.results.sweeps import Sweep
from blip2sweep.running.local import check_local, run_local


class Asked(NamedTuple):
    """What a call asks for. workers: None: one a GPU. processes: of each cell. output_dir: None: as the words say."""

    overrides: Overrides
    more: Sequence[Overrides] = ()
    workers: int | None = None
    processes: int | None = None
    config_dir: str | Path | None = None
    output_dir: str | Path | None = None


def run(asked: Asked, progress: bool | None) -> pd.DataFrame:
    """Run a sweep on this machine. Returns its table, in which failed cells are rows too. Raises UserError for bad
    input."""
    with _call(progress):
        return _table(_run(asked, *_jobs(asked)))


def run_one(asked: Asked, progress: bool | None) -> pd.Series:
    """Run one cell, and its baseline. Returns its row.

    Raises UserError for bad input and for several cells, and SweepFailed where the cell failed.
    """
    with _call(progress):
        words, jobs = _jobs(asked)
        if len(jobs) != 1:
            raise UserError(f"{' '.join(words)}: {len(jobs)} cells, and evaluate is about one; right: sweep(…)")
        outcome = _run(asked, words, jobs)
        outcome.value(0)  # raises what befell the cell
        table = _table(outcome)
        return table[table["key"] == outcome.plan.keys[0]].iloc[0]


def would_run(asked: Asked) -> SweepPlan:
    """What `run` would do. Nothing is written. Raises UserError for bad input."""
    with _call(None):
        words, jobs = _jobs(asked)
        workers, processes = _checked(asked)
        plan, _ = plan_sweep(jobs, devices=devices_here, command=_command(asked, words))
        check_local(plan.to_launch, workers, processes)
        return planned(plan, Path(jobs[0].config["output_dir"]), workers, processes)


@contextmanager
def _call(progress: bool | None) -> Iterator[None]:
    """One call of the API: nothing that an earlier one learned of code from outside is known, and no warning was said."""
    fresh()
    with telling(progress), explained():
        yield


def fresh() -> None:
    """Begin as a new process would."""
    settle_user()
    remarks.forget()
    outside.forget()
    forget_added()


def _jobs(asked: Asked) -> tuple[list[str], list[PlannedJob]]:
    """The words, and a job for each cell of them."""
    words = with_output_dir(words_of(asked.overrides, asked.more), asked.output_dir)
    own = None if asked.config_dir is None else Path(asked.config_dir)
    if own is not None and not own.is_dir():
        raise UserError(f"config_dir={own}: no such folder; right: one with model/, task/ … as in conf/")
    made = composer(own)
    made.check(words)
    return words, [PlannedJob(tuple(job), made.config(tuple(job))) for job in expand(words, made)]


def _run(asked: Asked, words: Sequence[str], jobs: Sequence[PlannedJob]) -> Outcome:
    workers, processes = _checked(asked)

    def launch(plan: Plan, sweep: Sweep, output_dir: Path) -> bool:
        return run_local([c.job() for c in plan.to_launch], sweep, output_dir, workers, processes)

    return run_sweep(
        jobs,
        launch,
        check=lambda plan: check_local(plan.to_launch, workers, processes),
        devices=devices_here,
        command=_command(asked, words),
        printed=False,
    )


def _checked(asked: Asked) -> tuple[int | None, int]:
    """(workers, processes of each cell). Raises UserError for a number that is none."""
    workers = asked.workers
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise UserError(f"workers={workers}: right: 1 or more, or None for one a GPU")
    return workers, checked_processes(asked.processes)


def _command(asked: Asked, words: Sequence[str]) -> str:
    """The command that does the same, as the sweep's file keeps it."""
    folder = [] if asked.config_dir is None else ["--config-dir", str(asked.config_dir)]
    launcher = {"workers": asked.workers, "processes_per_cell": asked.processes}
    given = [f"hydra.launcher.{name}={value}" for name, value in launcher.items() if value is not None]
    return shlex.join(["-m", *folder, *words, *given])


def _table(outcome: Outcome) -> pd.DataFrame:
    table = read_table(outcome.sweep.folder(outcome.output_dir) / "table.parquet")
    table.attrs["sweep"] = outcome.sweep.name
    return table
