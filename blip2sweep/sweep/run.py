"""One command from jobs to table: plan, run, collect. What launchers call; a plain library function."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from blip2sweep import cache
from blip2sweep.errors import UserError
from blip2sweep.ledger import Ledger
from blip2sweep.printing import console
from blip2sweep.report.tracking import check_tracking
from blip2sweep.sweep.finish import SweepFailed, finish, not_scored, why_lost
from blip2sweep.sweep.plan import Job, Plan, make_plan
from blip2sweep.sweep.status import told
from blip2sweep.sweep.sweeps import Submission, Sweep, check_name, new_sweep, read_sweep

Launch = Callable[[Plan, Sweep, Path], bool]  # runs what the plan has to do; False: left running


@dataclass
class Outcome:
    """What came of a sweep: value and error by job, in order."""

    plan: Plan
    sweep: Sweep
    output_dir: Path
    values: dict[str, float]  # key -> main metric
    errors: dict[str, dict[str, Any]]  # key -> last failure
    detached: bool = False  # the jobs were left running

    def value(self, i: int) -> float:
        """The main metric of job i; raises what befell it instead."""
        key = self.plan.keys[i]
        if key is None:
            raise UserError(self.plan.reasons[i])
        if key not in self.values:
            raise SweepFailed(f"cell {key}: " + self.errors.get(key, {}).get("error", "no result"))
        return self.values[key]


def run_sweep(jobs: Sequence[Job], launch: Launch) -> Outcome:
    """Plan the jobs, launch what is open, collect, print. All settings that are no cell's come from the first job."""
    config = jobs[0].config
    output_dir = Path(config["output_dir"])
    plan, ledger = plan_sweep(jobs)
    screen = console(err=True)
    announce(plan, screen)
    sweep = new_sweep(plan, shlex.join(sys.argv[1:]), config.get("sweep_name"), ledger)
    sweep.settings, sweep.tracking = settings(config, sweep.rerun), dict(config["tracking"])
    sweep.submissions = earlier_submissions(output_dir, sweep.name)
    if not plan.todo:
        sweep.write(output_dir)
        screen.print("nothing to run: every cell is in the ledger")
    elif not launch(plan, sweep, output_dir):
        return Outcome(plan, sweep, output_dir, {}, {}, detached=True)
    return _outcome(plan, sweep, output_dir, finish(output_dir, sweep))


def plan_sweep(jobs: Sequence[Job]) -> tuple[Plan, Ledger]:
    """Everything that can be wrong with a sweep is found here; nothing is written."""
    config = jobs[0].config
    output_dir = Path(config["output_dir"])
    check_output_dir(output_dir)
    check_name(config.get("sweep_name"))
    check_tracking(config["tracking"])
    check_sizes(config)
    cache.check(config)
    ledger = Ledger(output_dir).refresh()
    return make_plan(jobs, ledger, config.get("rerun") or []), ledger


def check_sizes(config: Any) -> None:
    """Refuse a batch or a number of processes that cannot be."""
    if (batch := config.get("batch_size")) is not None and batch < 1:
        raise UserError(f"batch_size={batch}: right: a positive integer, or null to choose by device")
    if (workers := config.get("data_workers") or 0) < 0:
        raise UserError(f"data_workers={workers}: right: 0, or how many processes decode images")


def settings(config: Any, rerun: dict[str, list[str]]) -> dict[str, Any]:
    """What workers are told besides the cells. BLIP2SWEEP_RUNNER names another evaluator (see sweep/dummy.py)."""
    told = {"batch_size": config.get("batch_size"), "data_workers": config.get("data_workers") or 0, "rerun": rerun}
    told |= cache.settings(config)
    told["propagation"] = bool((config.get("analysis") or {}).get("propagation"))
    runner = os.environ.get("BLIP2SWEEP_RUNNER")
    return {**told, "runner": runner} if runner else told


def earlier_submissions(output_dir: Path, name: str) -> list[Submission]:
    """Of a sweep of the same name, so that its jobs are not lost from sight."""
    path = output_dir / "sweeps" / name / "sweep.json"
    return read_sweep(path).submissions if path.exists() else []


def announce(plan: Plan, screen: Console) -> None:
    """How many cells, and which are skipped and why."""
    screen.print(plan.summary())
    for i, reason in plan.reasons.items():
        screen.print(f"  skipped: {' '.join(plan.jobs[i].overrides)}: {reason}")


def _outcome(plan: Plan, sweep: Sweep, output_dir: Path, table: Any) -> Outcome:
    ledger = Ledger(output_dir, only=sweep.keys).refresh()
    errors = {k: f[-1] for k, a in ledger.attempts.items() if (f := sweep.failures(a)) and not sweep.done(ledger, k)}
    rows = {row["key"]: row for row in table.to_dict("records")}
    done = [c for c in plan.cells.values() if sweep.done(ledger, c.key)]
    values = {c.key: float(rows.get(c.key, {}).get(c.task_config["main_metric"], float("nan"))) for c in done}
    return Outcome(plan, sweep, output_dir, values, errors)


def failures(outcome: Outcome) -> str | None:
    """`2 of 10 cells failed: 1 oom, 1 crash …`, or None."""
    if outcome.detached:
        return None
    gone = [k for k in outcome.plan.cells if k not in outcome.values]
    if not gone:
        return not_scored(outcome.output_dir, outcome.sweep)
    return told(gone, len(outcome.plan.cells), outcome.errors, why_lost(outcome.output_dir, outcome.sweep))


def check_output_dir(output_dir: Path) -> None:
    """Refuse an output_dir that is a file, or that cannot be written, before anything is made."""
    existing = next(p for p in [output_dir.absolute(), *output_dir.absolute().parents] if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"output_dir={output_dir}: {existing} is not a writable folder; right: a folder of yours")
