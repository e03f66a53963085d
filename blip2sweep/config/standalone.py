"""Composes one config outside of Hydra's main, for commands that need the section of a model or a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.version import VersionBase
from omegaconf.errors import OmegaConfBaseException

from blip2sweep.config import schema
from blip2sweep.config.compose import Composer
from blip2sweep.config.overrides import explain, normalise, parse
from blip2sweep.config.spelling import check_typed
from blip2sweep.console.quoting import override, quoted
from blip2sweep.errors import UserError


def composer(config_dir: Path | None = None) -> Composer:
    """A composer outside Hydra's main. What the caller has initialized of Hydra stays as it is.

    Raises UserError, one line, for a folder that is not there.
    """
    from hydra_plugins.blip2sweep import launchers, sweeper

    schema.register()
    Plugins.instance().register(sweeper.GridSweeper)
    Plugins.instance().register(launchers.LocalLauncher)
    if config_dir and not config_dir.is_dir():
        raise UserError(f"--config-dir {config_dir}: no such folder; right: one with model/, task/ … as in conf/")
    searched = [f"hydra.searchpath=[{quoted(f'file://{config_dir.absolute()}')}]"] if config_dir else []
    with _own_hydra():
        return Composer(GlobalHydra.instance().config_loader(), compose("config", searched, return_hydra_config=True))


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Inside, Hydra is initialized with our config; afterwards as before, which may be inside `initialize` of the caller."""
    before, base = GlobalHydra.instance().hydra, VersionBase.instance().version_base
    GlobalHydra.instance().clear()
    try:
        initialize_config_module("blip2sweep.conf", version_base="1.3")
        yield
    finally:
        GlobalHydra.instance().hydra = before
        VersionBase.instance().version_base = base


def compose_cell(
    overrides: Sequence[str], config_dir: Path | None = None, given: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The resolved config of one cell. given: {key: text} from flags, taken literally.

    Raises UserError, one line, for overrides that Hydra refuses, and for several values of one key.
    """
    with explained():
        made = composer(config_dir)
        words = [*(override(k, v) for k, v in (given or {}).items()), *map(normalise, overrides)]
        made.check(words)
        several = next((o.input_line for o in parse(words) if o.is_sweep_override()), None)
        if several:
            raise UserError(f"{several}: several values, and this is about one cell; right: one value")
        check_typed(parse(words), (made.anatomy(job) for job in [tuple(words)]))
        return made.config(tuple(words))


@contextmanager
def explained() -> Iterator[None]:
    """Inside, what Hydra refuses is a UserError of one line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error
