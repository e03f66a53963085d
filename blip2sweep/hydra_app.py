"""Hydra's door: its main function on our config."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, cast

if TYPE_CHECKING:
    from omegaconf import DictConfig

# The verbs whose words are those of a sweep, and the flag of each that is not Hydra's.
VERBS = {"plan": "--all-cells", "screen": "--plan"}


def run_hydra(words: Sequence[str], verb: str | None = None) -> None:
    """Run Hydra's main on our config. words: the command line; verb: one of VERBS, None to run the sweep.

    Hydra prints several lines for an error and exits with 1. HYDRA_FULL_ERROR makes it raise the error instead.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"
    flagged = verb is not None and VERBS[verb] in words
    words = [word for word in words if word != VERBS[verb]] if verb is not None and flagged else words
    import hydra
    from hydra.core.plugins import Plugins

    from blip2sweep.config import composed_once, schema
    from blip2sweep.config.arguments import arguments
    from hydra_plugins.blip2sweep import callbacks, launchers, sweeper

    sys.argv = ["blip2sweep", *arguments(words)]
    foreign = next((w for w in sys.argv if w.startswith("hydra/sweeper=") and w != "hydra/sweeper=blip2sweep"), None)
    if verb and foreign:
        refuse_plan(foreign, verb)
    composed_once.install()
    schema.register()
    callbacks.register()
    # Hydra's search for plugins misses an editable install, so ours are registered by hand.
    Plugins.instance().register(sweeper.GridSweeper)
    Plugins.instance().register(launchers.LocalLauncher)
    Plugins.instance().register(launchers.SlurmLauncher)
    task = TASKS[verb, flagged] if verb else run_cell
    hydra.main(version_base="1.3", config_path="pkg://blip2sweep.conf", config_name="config")(task)()


def refuse_plan(sweeper: str, verb: str = "plan") -> NoReturn:
    """Raise UserError for a plan or a screening with a sweeper of others."""
    from blip2sweep.errors import UserError

    raise UserError(f"{sweeper}: what such a sweeper runs is decided while it runs; right: {verb} without it")


def describe_cell(config: DictConfig) -> float:
    """Hydra's task function of `blip2sweep plan`: our sweeper sees that it is this one, and runs nothing."""
    raise NotImplementedError


def describe_every_cell(config: DictConfig) -> float:
    """The same of `blip2sweep plan --all-cells`, which lists every cell of a large sweep."""
    raise NotImplementedError


def screen_cells(config: DictConfig) -> float:
    """The same of `blip2sweep screen`: our sweeper runs some of the cells, in rounds."""
    raise NotImplementedError


def describe_screening(config: DictConfig) -> float:
    """The same of `blip2sweep screen --plan`."""
    raise NotImplementedError


TASKS = {
    ("plan", False): describe_cell,
    ("plan", True): describe_every_cell,
    ("screen", False): screen_cells,
    ("screen", True): describe_screening,
}  # by verb, and whether its flag was given


def verb_of(task: object) -> str | None:
    """The verb that a task function of Hydra stands for; None where the sweep is run."""
    return next((verb for (verb, _), own in TASKS.items() if own is task), None)


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
