"""Checks the settings of Hydra itself. A setting that neither blip2sweep nor its launcher reads is refused, so that
none is ignored silently."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from blip2sweep.errors import UserError

USED = ("hydra/", "hydra.launcher", "hydra.sweeper", "hydra.callbacks", "hydra.searchpath", "hydra.hydra_help",
        "hydra.verbose", "hydra.job_logging", "hydra.hydra_logging", "hydra.mode")  # fmt: skip
# Our values, so that another value in a user's config file is noticed too.
OURS: dict[str, object] = {
    "hydra.run.dir": ".", "hydra.sweep.subdir": ".", "hydra.output_subdir": None, "hydra.job.name": "blip2sweep",
    "hydra.job.chdir": False, "hydra.job.env_set": {}, "hydra.job.env_copy": [],
}  # fmt: skip
RIGHT = {
    "hydra.run.dir": "--output-dir DIR",
    "hydra.sweep.dir": "--output-dir DIR",
    "hydra.job.name": "sweep_name=NAME, or hydra/launcher=slurm, whose jobs it names",
}


def check_hydra(config: DictConfig, also_used: tuple[str, ...]) -> None:
    """Raise UserError, one line, for the first setting that a sweep would ignore. also_used: further keys that the
    sweeper and the launcher read."""
    given = {o.lstrip("+~").partition("=")[0]: o for o in config.hydra.overrides.hydra}
    dropped = [key for key in given if not key.startswith((*USED, *also_used))]
    dropped += [k for k, own in _expected(config).items() if k not in also_used and _value(config, k) != own]
    if dropped:
        key = dropped[0]
        setting = given.get(key, f"{key}={_value(config, key)}")
        raise UserError(
            f"{setting}: nothing here reads it, so it would be dropped; right: {RIGHT.get(key, 'leave it out')}"
        )


def _expected(config: DictConfig) -> dict[str, object]:
    return {**OURS, "hydra.sweep.dir": f"{config.output_dir}/hydra"}


def _value(config: DictConfig, key: str) -> object:
    value = OmegaConf.select(config, key)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
