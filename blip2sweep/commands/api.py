"""The functions behind the Python API."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from blip2sweep.commands.report import report
from blip2sweep.commands.run import run_sweep
from blip2sweep.config.grid import expand
from blip2sweep.config.overrides import normalise
from blip2sweep.config.standalone import composer
from blip2sweep.machine.devices import devices_here
from blip2sweep.planning.plan import PlannedJob
from blip2sweep.planning.processes import checked_processes
from blip2sweep.reporting.sources import load_sources
from blip2sweep.results.latest import read_table
from blip2sweep.running.local import check_local, run_local


def run(
    overrides: str,
    more: Sequence[str],
    workers: int | None,
    config_dir: Path | None = None,
    processes_per_cell: int | None = None,
) -> pd.DataFrame:
    """Run a sweep on this machine. Returns its table, in which failed cells are rows too. Raises UserError for bad
    input."""
    processes = checked_processes(processes_per_cell)
    made, words = composer(config_dir), [normalise(word) for word in (*shlex.split(overrides), *more)]
    made.check(words)
    jobs = [PlannedJob(tuple(job), made.config(tuple(job))) for job in expand(words, made)]
    outcome = run_sweep(
        jobs,
        lambda plan, sweep, folder: run_local([c.job() for c in plan.to_launch], sweep, folder, workers, processes),
        check=lambda plan: check_local(plan.to_launch, workers, processes),
        devices=devices_here,
    )
    return read_table(outcome.sweep.folder(outcome.output_dir) / "table.parquet")


def write_report(sweep: str | None, output_dir: Path, path: Path | None) -> Path:
    """Write the page. Returns its path."""
    sources = load_sources(output_dir, sweep)
    report(sources, path, png=False, pdf=False)
    return path or sources.selection.folder / "report.html"
