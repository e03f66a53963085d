"""Callbacks for sweepers of others, such as Optuna: checks before the first trial, and the best trial after the last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

OURS = "hydra_plugins.blip2sweep."


class Search(Callback):
    """For a search such as Optuna's: checks that its direction is the metric's, and prints the best trial."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Exits with 2 where the settings are wrong, since Hydra turns other exceptions of a callback into warnings."""
        if _ours(config) or str(config.hydra.sweeper.get("_target_")).endswith(".BasicSweeper"):
            return
        from blip2sweep.console.printing import say
        from blip2sweep.errors import UserError

        try:
            _check_direction(config)
        except UserError as error:
            say(f"error: {error}", err=True)
            raise SystemExit(2) from None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from hydra_plugins.blip2sweep.launchers import PackLauncher

        if _ours(config):
            return
        if PackLauncher.launched:
            from blip2sweep.commands.trials import print_trials, trials

            print_trials(trials(PackLauncher.launched), Path(config.output_dir))
        elif "direction" in config.hydra.sweeper:
            from blip2sweep.console.printing import say

            say("what was tried: blip2sweep table --all")


def register() -> None:
    """`${direction:METRIC}` in a config: minimize or maximize, for the best of a metric."""
    OmegaConf.register_new_resolver("direction", _direction, replace=True)


def _direction(metric: str) -> str:
    from blip2sweep.commands.trials import direction

    return direction(metric)


def _check_direction(config: DictConfig) -> None:
    """Raise UserError where the search would call the worst cell the best."""
    from blip2sweep import outside
    from blip2sweep.commands.trials import check_direction
    from blip2sweep.config.compose import folders
    from blip2sweep.console.printing import say
    from blip2sweep.tasks.task import task_of

    outside.search(folders(config))
    task_of(str(config.task.kind))  # whose metrics are known from here on, to `${direction:METRIC}` too
    key, asked = _direction_of(config.hydra.sweeper)
    if key is None:
        say("which way this sweeper searches is not known: its best may be the worst", err=True)
    else:
        check_direction(key, asked, str(config.task.main_metric))


def _ours(config: DictConfig) -> bool:
    return str(config.hydra.sweeper.get("_target_")).startswith(OURS)


def _direction_of(sweeper: DictConfig) -> tuple[str | None, Any]:
    """(the setting that says which way it searches, its direction in Optuna's words), None where none is known."""
    if "direction" in sweeper:
        found = sweeper.direction
        return "direction", list(found) if not isinstance(found, str) and hasattr(found, "__iter__") else found
    for key, yes, no in (
        ("optim.maximize", "maximize", "minimize"),  # Nevergrad's
        ("ax_config.experiment.minimize", "minimize", "maximize"),
    ):
        if (found := OmegaConf.select(sweeper, key)) is not None:
            return key, yes if found else no
    return None, None
