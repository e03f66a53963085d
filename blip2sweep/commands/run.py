"""Plans, runs and collects a sweep. Launchers and the Python API call it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from blip2sweep.cache import disk as cache
from blip2sweep.chat.recipe import endpoint
from blip2sweep.commands.cell_words import cell_overrides
from blip2sweep.commands.finish import ask_for, finish, why_lost
from blip2sweep.commands.plan import announce
from blip2sweep.commands.run_checks import (
    Config,
    asks_of,
    check_chat,
    check_measured_by_torch,
    check_noise_floor,
    check_output_dir,
    check_sizes,
    times,
)
from blip2sweep.console.bar import verbose
from blip2sweep.console.printing import say
from blip2sweep.console.remarks import remark
from blip2sweep.errors import SweepFailed, UserError
from blip2sweep.machine.devices import Devices
from blip2sweep.planning.plan import Plan, PlannedJob, make_plan
from blip2sweep.planning.sweep import asked_by_both, new_sweep
from blip2sweep.planning.timed import Timed, check_some_timed, timed_cells
from blip2sweep.reporting.tracking import check_tracking
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.stopped import with_earlier
from blip2sweep.results.sweeps import Sweep, check_name, is_forgotten, read_sweep, submissions_of
from blip2sweep.results.unscored import not_scored, unscored
from blip2sweep.running.status import failure_summary
from blip2sweep.wire.lines import FailureLine
from blip2sweep.wire.pack import JsonObject, Settings
from blip2sweep.wire.stopping import StopRequest
from blip2sweep.workers.signals import term_as_ctrl_c

if TYPE_CHECKING:
    import pandas as pd

Launch = Callable[[Plan, Sweep, Path], bool]  # runs what the plan has to do; False: left running


@dataclass
class Outcome:
    """The outcome of a sweep: the value and the error of each cell."""

    plan: Plan
    sweep: Sweep
    output_dir: Path
    values: dict[str, float]  # key -> main metric, that of its first job
    errors: dict[str, FailureLine]  # key -> last failure
    waiting: Collection[str] = ()  # keys of cells that wait for a chat model
    detached: bool = False  # the jobs were left running
    by_job: dict[int, float] = field(default_factory=dict)  # main metric of each job whose cell is done

    def value(self, i: int) -> float:
        """The main metric of job i, by its own rule of scoring. Raises UserError for a skipped job and SweepFailed for
        one without a result."""
        key = self.plan.keys[i]
        if key is None:
            raise UserError(self.plan.reasons[i])
        if key not in self.values:
            why = f"waits for a chat model; right: {ask_for(self.sweep)}" if key in self.waiting else "no result"
            raise SweepFailed(f"cell {key}: " + (self.errors[key]["error"] if key in self.errors else why))
        return self.by_job[i]


def run_sweep(
    jobs: Sequence[PlannedJob],
    launch: Launch,
    begun: set[Path] | None = None,
    check: Callable[[Plan], None] = lambda plan: None,
    devices: Callable[[], Devices | None] = lambda: None,
    command: str | None = None,
    printed: bool = True,
    one_of: Callable[[Plan], Plan] | None = None,
) -> Outcome:
    """Plan the jobs, launch the cells without a result, collect and print. Settings that belong to no cell come from
    the first job.

    begun: the files of sweeps that the caller has launched before and goes on with; this sweep's file is added. check:
    raises UserError for a plan that cannot be launched, before anything is printed or written. devices: as `plan_sweep`
    takes them. command: what the sweep is said to come from; None: this process's own. printed: whether its table is.
    one_of: makes of the plan what is launched now, of a caller that launches many times and says itself what it does.
    """
    config, command = jobs[0].config, own_command() if command is None else command
    output_dir = Path(config["output_dir"])
    begun = set() if begun is None else begun
    plan, ledger = plan_sweep(jobs, begun, devices, command)
    check(plan)
    if one_of:
        plan = one_of(plan)
    else:
        announce(plan)
    sweep = new_sweep(plan, command, config.get("sweep_name"), ledger)
    go_on(sweep, plan, output_dir, begun)
    with_chat = next((job.config for job in jobs if asks_of(job.config)), config)
    told = settings({**config, "chat": with_chat.get("chat")}, sweep.rerun, plan.timed, plan.stopping.request)
    sweep.settings, sweep.tracking = with_earlier(told, sweep.settings, plan.cells), dict(config["tracking"])
    if code := {full: c for cell in plan.cells.values() for full, c in cell.outside.items()}:
        sweep.settings["outside"] = code
    sweep.submissions = submissions_of(output_dir, sweep.name)
    if not plan.to_launch:
        sweep.write(output_dir)
        if verbose() and not one_of:
            say("nothing to run: every cell is in the ledger", err=True)
    with term_as_ctrl_c():
        if plan.to_launch and not launch(plan, sweep, output_dir):
            return Outcome(plan, sweep, output_dir, {}, {}, detached=True)
        return _outcome(plan, sweep, output_dir, finish(output_dir, sweep, printed=printed))


def plan_sweep(
    jobs: Sequence[PlannedJob],
    begun: Collection[Path] = (),
    devices: Callable[[], Devices | None] = lambda: None,
    command: str | None = None,
) -> tuple[Plan, Ledger]:
    """Make the plan and check all settings. Every error of a sweep is raised here, and nothing is written.

    devices: gives those that the cells would be timed on, or None where that is not known here. command: as `run_sweep`
    takes it.
    """
    config = jobs[0].config
    output_dir = Path(config["output_dir"])
    check_output_dir(output_dir)
    check_name(config.get("sweep_name"))
    check_tracking(config["tracking"])
    check_sizes(config)
    cache.check(config)
    ledger = Ledger(output_dir).refresh()
    plan = make_plan(jobs, ledger, config.get("rerun") or [])
    check_measured_by_torch(config, plan)
    check_noise_floor(config, plan)
    check_chat(jobs, plan)
    if times(config):
        check_some_timed(plan)
        plan.timed = timed_cells(plan, ledger, devices())
    in_use = name_in_use(output_dir, config.get("sweep_name"), plan, begun, command)
    if in_use and verbose():
        say(in_use, err=True)
    return plan, ledger


def name_in_use(
    output_dir: Path, name: str | None, plan: Plan, begun: Collection[Path] = (), command: str | None = None
) -> str | None:
    """A message on what becomes of the existing sweep of that name: a larger grid extends it. None where there is none.

    Raises UserError where the name belongs to another grid. The cells of the existing sweep may have other keys now,
    because its data changed or because this is another version.
    """
    path = output_dir / "sweeps" / (name or "") / "sweep.json"
    if name is None or not path.exists() or path in begun:
        return None
    try:
        there = read_sweep(path)
    except UserError as error:
        remark(f"{error}; what it was is not known")
        return None
    if is_forgotten(output_dir, there):
        return None
    old, new = set(there.keys), set(plan.cells)
    if old <= new:
        return f"sweep {name}: {len(old)} cells were there, {len(new - old)} added" if new - old else None
    if sorted(cell_overrides(there.command)) == sorted(cell_overrides(own_command() if command is None else command)):
        return f"sweep {name}: {len(old - new)} of its {len(old)} cells have other keys now, and are replaced by {len(new - old)}"
    raise UserError(
        f"sweep_name={name}: in use for another grid, {len(old - new)} of whose {len(old)} cells are not in this one; "
        f"it came from: {there.command}; right: another sweep_name, or one command with the cells of both"
    )


def go_on(sweep: Sweep, plan: Plan, output_dir: Path, begun: set[Path]) -> None:
    """Add the cells of earlier launches to a sweep. A sweeper that chooses cells by their results launches one sweep
    many times."""
    path = sweep.folder(output_dir) / "sweep.json"
    if path in begun and path.exists():
        there = read_sweep(path)
        sweep.keys = list(dict.fromkeys([*there.keys, *sweep.keys]))
        sweep.baselines = list(dict.fromkeys([*there.baselines, *sweep.baselines]))
        sweep.rerun, sweep.skipped = {**there.rerun, **sweep.rerun}, [*there.skipped, *sweep.skipped]
        sweep.single, sweep.created = False, there.created
        sweep.scoring, sweep.settings = asked_by_both(there, plan), there.settings
    begun.add(path)


def own_command() -> str:
    return shlex.join(sys.argv[1:])


def settings(
    config: Config, rerun: dict[str, list[str]], timed: Timed | None = None, stop: StopRequest | None = None
) -> Settings:
    """The settings that workers get besides the cells."""
    told: JsonObject = {
        "batch_size": config.get("batch_size"),
        "data_workers": config.get("data_workers") or 0,
        "rerun": rerun,
    }
    told |= cache.settings(config)
    told["scoring_minutes"] = config.get("scoring_minutes")
    if asks_of(config):
        told["chat"] = endpoint(config["chat"])
    told |= {name: bool((config.get("analysis") or {}).get(name)) for name in ("propagation", "noise_floor")}
    told |= {**({"latency": list(timed.keys)} if timed else {}), **({"stop": stop} if stop else {})}
    return cast("Settings", told)


def _outcome(plan: Plan, sweep: Sweep, output_dir: Path, table: pd.DataFrame) -> Outcome:
    ledger = Ledger(output_dir, only=sweep.keys).refresh()
    errors = {k: f[-1] for k, a in ledger.attempts.items() if (f := sweep.failures(a)) and not sweep.done(ledger, k)}
    rows = {row["key"]: row for row in table.to_dict("records")}
    done = [c for c in plan.cells.values() if sweep.done(ledger, c.key)]
    values = {c.key: _number(rows, c.key, c.task.main_metric) for c in done}
    waiting = [k for k, a in ledger.attempts.items() if a.waits and k not in values]
    if waiting:
        say(f"{len(waiting)} of {len(plan.cells)} cells wait for a chat model; right: {ask_for(sweep)}", err=True)
    errors = {k: e for k, e in errors.items() if k not in waiting}
    asked = [(i, k, m) for i, (k, m) in enumerate(zip(plan.keys, plan.metrics, strict=True)) if k in values]
    by_job = {i: _number(rows, str(key), str(metric)) for i, key, metric in asked}
    return Outcome(plan, sweep, output_dir, values, errors, waiting, by_job=by_job)


def _number(rows: Mapping[str, Mapping[Any, Any]], key: str, metric: str) -> float:
    return float(rows.get(key, {}).get(metric, float("nan")))


def failures(outcome: Outcome) -> str | None:
    """`2 of 10 cells failed: 1 oom, 1 crash …`, or None."""
    if outcome.detached:
        return None
    gone = [k for k in outcome.plan.cells if k not in outcome.values and k not in outcome.waiting]
    if not gone:
        missing = unscored(outcome.output_dir, outcome.sweep)
        return not_scored(outcome.output_dir, outcome.sweep, missing) if missing else None
    return failure_summary(gone, len(outcome.plan.cells), outcome.errors, why_lost(outcome.output_dir, outcome.sweep))
