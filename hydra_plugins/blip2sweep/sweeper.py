"""The sweeper: expands products, studies and `each`, and hands every job to the launcher at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from blip2sweep.config.compose import Composer
from blip2sweep.config.grid import expand
from blip2sweep.hydra_app import describe_every_cell, describe_screening, verb_of
from hydra_plugins.blip2sweep.launchers import PackLauncher, job_returns, jobs, launch_foreign


class GridSweeper(Sweeper):
    """Launch all combinations in one batch: nothing is composed twice, and a failed cell does not stop the others."""

    def __init__(self) -> None:
        self.launcher: Launcher | None = None
        self.composer: Composer | None = None
        self.verb: str | None = None  # `plan`: print what would be done; `screen`: run what may be on the frontier
        self.flagged = False  # `plan --all-cells`: of a large sweep, too; `screen --plan`: run nothing

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.composer = Composer(hydra_context.config_loader, config)
        self.verb = verb_of(task_function)
        self.flagged = task_function in (describe_every_cell, describe_screening)

    def sweep(self, arguments: list[str]) -> Any:
        assert self.composer is not None
        self.composer.check(arguments)
        lists = [list(job) for job in expand(arguments, self.composer)]
        does = {"plan": self._describe, "screen": self._screen}.get(self.verb or "", self._launch)
        return does(lists)

    def _launch(self, lists: list[list[str]]) -> Any:
        from blip2sweep.commands.run import failures
        from blip2sweep.errors import SweepFailed

        assert self.launcher is not None
        assert self.composer is not None
        if isinstance(self.launcher, PackLauncher):
            returns, failed = self.launcher.launch_together(lists, self.composer), self.launcher.failed
        else:
            outcome = launch_foreign(self.launcher, lists, self.composer)
            returns, failed = job_returns(outcome), failures(outcome)
        if failed:
            raise SweepFailed(failed)
        return returns

    def _describe(self, lists: list[list[str]]) -> None:
        from blip2sweep.commands.plan import describe
        from blip2sweep.commands.run import plan_sweep

        assert self.composer is not None
        own = self.launcher if isinstance(self.launcher, PackLauncher) else None
        plan, _ = plan_sweep(made := jobs(lists, self.composer), devices=own.devices if own else lambda: None)
        if own:
            own.check(plan)
        describe(plan, self.flagged)
        if own:
            own.describe(plan, Path(made[0].config["output_dir"]))

    def _screen(self, lists: list[list[str]]) -> None:
        from blip2sweep.commands.screen import run_screen
        from blip2sweep.commands.screen_rounds import Way
        from blip2sweep.errors import UserError

        assert self.composer is not None
        own = self.launcher
        if not isinstance(own, PackLauncher):
            raise UserError(
                f"hydra/launcher={type(own).__name__}: a screening reads results between launches; right: local or slurm"
            )
        if not own.waits:
            raise UserError(
                "hydra.launcher.wait=false: a screening reads results between launches; right: leave it out"
            )
        run_screen(jobs(lists, self.composer), Way(own.run, own.check, own.devices), self.flagged)
