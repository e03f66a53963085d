"""Hydra's door: its main function on our config."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, cast

if TYPE_CHECKING:
    from omegaconf import DictConfig

ALL_CELLS = "--all-cells"  # of `blip2sweep plan`


def run_hydra(words: Sequence[str], plan_only: bool = False) -> None:
    """Run Hydra's main on our config. words: the command line; plan_only: plan the sweep and run nothing.

    Hydra prints several lines for an error and exits with 1. HYDRA_FULL_ERROR makes it raise the error instead.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"
    every = plan_only and ALL_CELLS in words
    words = [word for word in words if word != ALL_CELLS] if every else words
    import hydra
    from hydra.core.plugins import Plugins

    from blip2sweep.config import composed_once, schema
    from blip2sweep.config.arguments import arguments
    from hydra_plugins.blip2sweep import callbacks, launchers, sweeper

    sys.argv = ["blip2sweep", *arguments(words)]
    foreign = next((w for w in sys.argv if w.startswith("hydra/sweeper=") and w != "hydra/sweeper=blip2sweep"), None)
    if plan_only and foreign:
        refuse_plan(foreign)
    composed_once.install()
    schema.register()
    callbacks.register()
    # Hydra's search for plugins misses an editable install, so ours are registered by hand.
    Plugins.instance().register(sweeper.GridSweeper)
    Plugins.instance().register(launchers.LocalLauncher)
    Plugins.instance().register(launchers.SlurmLauncher)
    task = (describe_every_cell if every else describe_cell) if plan_only else run_cell
    hydra.main(version_base="1.3", config_path="pkg://blip2sweep.conf", config_name="config")(task)()


def refuse_plan(sweeper: str) -> NoReturn:
    """Raise UserError for a plan with a sweeper of others."""
    from blip2sweep.errors import UserError

    raise UserError(f"{sweeper}: what such a sweeper runs is decided while it runs; right: plan without it")


def describe_cell(config: DictConfig) -> float:
    """Hydra's task function of `blip2sweep plan`: our sweeper sees that it is this one, and runs nothing."""
    raise NotImplementedError


def describe_every_cell(config: DictConfig) -> float:
    """The same of `blip2sweep plan --all-cells`, which lists every cell of a large sweep."""
    raise NotImplementedError


PLANS = (describe_cell, describe_every_cell)


def run_cell(config: DictConfig) -> float:
    """Hydra's task function, which launchers other than ours call: runs one cell in this process."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from blip2sweep import outside
    from blip2sweep.commands.run_one import run_single
    from blip2sweep.config.compose import folders, with_own_folder
    from blip2sweep.config.overrides import parse
    from blip2sweep.models.own_folder import OwnFolders

    outside.search(folders(OmegaConf.create({"hydra": HydraConfig.get()})))
    plain = cast("dict[str, object]", OmegaConf.to_container(config, resolve=True))
    return run_single(with_own_folder(plain, parse(HydraConfig.get().overrides.task), OwnFolders()))
