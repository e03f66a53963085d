"""Checks experiments (`+experiment=NAME`): a file of values cannot say what one command has once, and another file says
otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from blip2sweep.config.schema import OF_THE_COMMAND
from blip2sweep.errors import UserError
from blip2sweep.models.own_folder import PLACES

EXPERIMENT = "experiment="
OF_HYDRA = ("launcher", "sweeper", "callbacks")


def named(choice: Sequence[str]) -> str | None:
    """The experiment among the overrides of a job, as it is typed."""
    return next((o for o in reversed(choice) if o.startswith(EXPERIMENT)), None)


def check_hydra_of(experiment: str, config: DictConfig, master: DictConfig) -> None:
    """Raise UserError where an experiment chooses a launcher that the command does not have: the command was composed
    without it, because it names several experiments, or because Python called."""
    for name in OF_HYDRA:
        own, whole = (OmegaConf.select(c, f"hydra.{name}") for c in (config, master))
        if own != whole:
            raise UserError(
                f"{experiment}: sets hydra.{name}, which a command has once; right: one experiment, or hydra/{name}=… typed"
            )


def check_model_of(experiment: str, config: DictConfig, without: DictConfig) -> None:
    """Raise UserError where an experiment names a folder of weights and no model: the folder would have the default
    model's parts and sizes. without: the config without the experiment."""
    chosen, before = (OmegaConf.select(c, "hydra.runtime.choices.model") for c in (config, without))
    for place in PLACES:
        own = OmegaConf.select(config, place)
        if chosen == before and own != OmegaConf.select(without, place):
            raise UserError(
                f"{experiment}: {place}={own} without a model; right: `override /model: NAME` in its defaults, or {place}={own} "
                "typed"
            )


class Alike:
    """The settings of a whole command, which all experiments of one must have in common."""

    def __init__(self) -> None:
        self._first: tuple[str, dict[str, object]] | None = None

    def check(self, experiment: str, config: Mapping[str, Any]) -> None:
        """Raise UserError where the config of a cell has other settings than that of the first experiment."""
        own = {key: _value(config, key) for key in OF_THE_COMMAND}
        first, before = self._first = self._first or (experiment, own)
        for key in OF_THE_COMMAND:
            if own[key] != before[key]:
                raise UserError(
                    f"{experiment}: {key}={own[key]}, and {before[key]} with {first}: one command has one; right: the same in "
                    f"both, or {key}=… typed"
                )


def _value(config: Mapping[str, Any], key: str) -> object:
    section, _, name = key.partition(".")
    return config[section][name] if name else config[section]
