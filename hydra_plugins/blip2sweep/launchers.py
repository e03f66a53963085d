"""The launchers: plan, run, collect, and one JobReturn per override list, in order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from blip2sweep.config.compose import Composer
from blip2sweep.config.hydra_keys import check_hydra
from blip2sweep.errors import UserError
from blip2sweep.hydra_app import refuse_plan, verb_of

if TYPE_CHECKING:  # what runs a sweep is imported when one runs: `--help` needs none of it
    from blip2sweep.commands.run import Outcome
    from blip2sweep.machine.devices import Devices
    from blip2sweep.planning.plan import Plan, PlannedJob
    from blip2sweep.results.sweeps import Sweep


class PackLauncher(Launcher):
    """Plans all jobs together and runs what is open in packs. failed: the last launch's summary, if cells failed.

    launched: what came of every launch of this process that a sweeper of another make asked for.
    """

    launched: ClassVar[list[Outcome]] = []

    waits = True  # whether a launch returns when its cells have results
    uses: ClassVar[tuple[str, ...]] = ()  # settings of Hydra that it reads besides those of every launcher

    def __init__(self) -> None:
        self.composer: Composer | None = None
        self.failed: str | None = None
        self.sweep_dir: Path | None = None
        self.begun: set[Path] = set()  # sweeps that this launcher has launched: a search does so many times

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        foreign = not str(config.hydra.sweeper._target_).startswith("hydra_plugins.blip2sweep.")
        if foreign and (verb := verb_of(task_function)):
            refuse_plan(str(config.hydra.sweeper._target_), verb)  # chosen in a file: the words do not say it
        check_hydra(config, (*self.uses, *(("hydra.sweep.dir",) if foreign else ())))  # Optuna's writes a file there
        self.composer = Composer(hydra_context.config_loader, config)
        self.sweep_dir = Path(config.hydra.sweep.dir)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Called by sweepers of others, which write into the folder that Hydra's launchers make."""
        assert self.sweep_dir is not None
        assert self.composer is not None
        outcome = self._outcome(job_overrides, self.composer)
        self.launched.append(outcome)
        self.sweep_dir.mkdir(parents=True, exist_ok=True)
        return job_returns(outcome)

    def launch_together(self, job_overrides: Sequence[Sequence[str]], composer: Composer) -> list[JobReturn]:
        """Plan all jobs as one sweep, run it, collect. composer: which has composed what the jobs share."""
        return job_returns(self._outcome(job_overrides, composer))

    def _outcome(self, job_overrides: Sequence[Sequence[str]], composer: Composer) -> Outcome:
        from blip2sweep.commands.run import failures, run_sweep

        outcome = run_sweep(jobs(job_overrides, composer), self.run, self.begun, self.check, self.devices)
        self.failed = failures(outcome)
        return outcome

    def run(self, plan: Plan, sweep: Sweep, output_dir: Path) -> bool:
        """Run the open cells. Returns False where they were left running."""
        raise NotImplementedError

    def check(self, plan: Plan) -> None:
        """Raise UserError where the plan cannot be run as this launcher is set."""
        raise NotImplementedError

    def describe(self, plan: Plan, output_dir: Path) -> None:
        """Print how the plan would be run. Nothing is written."""
        raise NotImplementedError

    def devices(self) -> Devices | None:
        """Where cells would be timed. None where that is not known before they run."""
        return None


class LocalLauncher(PackLauncher):
    """Runs the jobs on this machine, sharing the loaded model between the cells of a worker."""

    def __init__(self, workers: int | None = None, processes_per_cell: int | None = 1) -> None:
        from blip2sweep.planning.processes import checked_processes

        super().__init__()
        self.processes = checked_processes(processes_per_cell)
        if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
            raise UserError(f"hydra.launcher.workers={workers}: right: 1 or more, or null for one a GPU")
        self.workers = workers

    def run(self, plan: Plan, sweep: Sweep, output_dir: Path) -> bool:
        from blip2sweep.running.local import run_local

        return run_local([c.job() for c in plan.to_launch], sweep, output_dir, self.workers, self.processes)

    def check(self, plan: Plan) -> None:
        from blip2sweep.running.local import check_local

        check_local(plan.to_launch, self.workers, self.processes)

    def describe(self, plan: Plan, output_dir: Path) -> None:
        from blip2sweep.commands.plan import describe_local

        describe_local(plan, output_dir, self.workers, self.processes)

    def devices(self) -> Devices | None:
        from blip2sweep.machine.devices import devices_here

        return devices_here()


class SlurmLauncher(PackLauncher):
    """Runs the jobs as arrays of packs. Its settings are those of hydra-submitit-launcher and a few more."""

    uses = ("hydra.job.name",)

    def __init__(self, **settings: Any) -> None:
        from blip2sweep.slurm.settings import checked_launcher

        super().__init__()
        plain = {k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in settings.items()}
        named = os.environ.get("SBATCH_CLUSTERS") or os.environ.get("SLURM_CLUSTERS")  # which sbatch would go by
        settled = checked_launcher(plain)
        self.settings = settled if settled["clusters"] else checked_launcher({**settled, "clusters": named})
        self.waits = bool(self.settings.get("wait", True))

    def run(self, plan: Plan, sweep: Sweep, output_dir: Path) -> bool:
        from blip2sweep.slurm.launch import run_slurm

        return run_slurm([c.job() for c in plan.to_launch], sweep, output_dir, self.settings)

    def check(self, plan: Plan) -> None:
        from blip2sweep.planning.processes import check_divisible
        from blip2sweep.slurm.settings import check_gpus

        check_divisible(plan.to_launch, self.settings.get("processes_per_cell") or 1)
        check_gpus(self.settings, [c.job() for c in plan.to_launch])

    def describe(self, plan: Plan, output_dir: Path) -> None:
        from blip2sweep.commands.plan import describe_slurm

        describe_slurm(plan, output_dir, self.settings)


def jobs(job_overrides: Sequence[Sequence[str]], composer: Composer) -> list[PlannedJob]:
    """(override list, composed config) of each job."""
    from blip2sweep.planning.plan import PlannedJob

    return [PlannedJob(tuple(o), composer.config(tuple(o))) for o in job_overrides]


def job_returns(outcome: Outcome) -> list[JobReturn]:
    """One JobReturn for each job, in order, with the main metric or the error that `return_value` raises."""
    return [_job_return(outcome, i) for i in range(len(outcome.plan.jobs))]


def _job_return(outcome: Outcome, i: int) -> JobReturn:
    ret = JobReturn(overrides=list(outcome.plan.jobs[i].overrides))
    try:
        ret.return_value, ret.status = outcome.value(i), JobStatus.COMPLETED
    except Exception as error:  # what befell the cell is the job's return value
        ret.return_value, ret.status = error, JobStatus.FAILED
    return ret


def launch_foreign(launcher: Launcher, overrides: Sequence[Sequence[str]], composer: Composer) -> Outcome:
    """Run a sweep through a launcher of others: one job for each open cell, baselines among them, and before the others
    where cells may stop."""
    from blip2sweep.commands.run import run_sweep
    from blip2sweep.console.printing import tell
    from blip2sweep.planning.plan import single_batches
    from blip2sweep.running.slurm_commands import for_submitit

    def run(plan: Plan, sweep: Sweep, output_dir: Path) -> bool:
        sweep.foreign = type(launcher).__module__
        sweep.write(output_dir)
        slurm = (
            type(launcher).__module__.startswith("hydra_plugins.hydra_submitit") and "Slurm" in type(launcher).__name__
        )
        launched = 0
        for batch in single_batches(plan):
            try:
                with for_submitit() if slurm else contextlib.nullcontext():
                    launcher.launch([list(o) for o in batch], initial_job_idx=launched)
            except Exception as error:  # one job's failure ends the collecting of all: the ledger knows about each
                tell("the launcher says: " + " ".join(str(error).split())[-400:])
            launched += len(batch)
        return True

    return run_sweep(jobs(overrides, composer), run)
