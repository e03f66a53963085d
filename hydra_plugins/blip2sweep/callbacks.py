"""What a sweeper that is not ours is held to before its first trial, and what is said after its last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

OURS = "hydra_plugins.blip2sweep."


class Search(Callback):
    """Around a search such as Optuna's: the direction is the metric's, and the best trial is named."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Exits with 2: Hydra turns any other exception of a callback into a warning, and goes on."""
        sweeper = config.hydra.sweeper
        if _ours(config) or "direction" not in sweeper:
            return
        from blip2sweep.errors import UserError
        from blip2sweep.printing import say
        from blip2sweep.sweep.trials import check_direction

        try:
            check_direction(_plain(sweeper.direction), str(config.task.main_metric))
        except UserError as error:
            say(f"error: {error}", err=True)
            raise SystemExit(2) from None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from hydra_plugins.blip2sweep.launchers import PackLauncher

        if not _ours(config) and PackLauncher.launched:
            from blip2sweep.sweep.trials import print_trials, trials

            print_trials(trials(PackLauncher.launched), Path(config.output_dir))


def register() -> None:
    """`${direction:METRIC}` in a config: which way a search for the best of a metric goes."""
    OmegaConf.register_new_resolver("direction", _direction, replace=True)


def _direction(metric: str) -> str:
    from blip2sweep.sweep.trials import direction

    return direction(metric)


def _ours(config: DictConfig) -> bool:
    return str(config.hydra.sweeper.get("_target_")).startswith(OURS)


def _plain(direction: Any) -> Any:
    return list(direction) if not isinstance(direction, str) and hasattr(direction, "__iter__") else direction
