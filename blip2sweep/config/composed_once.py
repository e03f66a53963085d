"""A config loader that composes the words of a sweep once. Hydra composes them for its mode alone, then again, and then
without the words that are no choice from a group, for the cells."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

from hydra._internal import hydra as inner
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

MODE = "hydra.mode=RUN"  # what Hydra adds where it knows no mode
Asked = tuple[str | None, tuple[str, ...], RunMode]
OURS = "blip2sweep.conf", "config"  # where the primary config of this package is, none of whose defaults is missing


def install() -> None:
    """Have Hydra's main use this loader."""
    inner.ConfigLoaderImpl = ConfigLoader  # type: ignore[misc]


class ConfigLoader(ConfigLoaderImpl):
    """Hands a config that was composed without a check out once more, to the next who asks for the same with one. Keeps
    what the config of a sweep was before any value was set."""

    _unchecked: tuple[Asked, DictConfig] | None = None
    # Hydra swallows what is wrong when it asks for the mode. Then it takes the words for those of one run, and says that a
    # value with commas is ambiguous: what was wrong first is raised in place of that.
    _failed: Mapping[tuple[str, ...], Exception] = {}
    _mode = RunMode.RUN
    _unset: bytes | None = None

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """The composed config. Raises what Hydra's loader raises."""
        asked = config_name, tuple(overrides), run_mode
        before, self._unchecked = self._unchecked, None
        if validate_sweep_overrides and before is not None and before[0] == asked:
            parsed = OverridesParser.create().parse_overrides(overrides)
            self.validate_sweep_overrides_legal(parsed, run_mode, from_shell)
            return before[1]
        self._mode = run_mode
        failed, self._failed = self._failed, {}
        wrong: Exception | None = None
        try:
            config = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        except Exception as error:
            words = tuple(o for o in overrides if o != MODE)
            wrong = failed.get(words, error)
            if not validate_sweep_overrides:
                self._failed = {words: error}
        if wrong is not None:
            raise wrong
        if not validate_sweep_overrides:
            self._unchecked = asked, config
        return config

    def _compose_config_from_defaults_list(self, *given: Any, **named: Any) -> DictConfig:
        config = super()._compose_config_from_defaults_list(*given, **named)
        if self._mode == RunMode.MULTIRUN:
            self._unset = pickle.dumps(config)  # to pickle takes a fifth of the time of a deep copy
        return config

    def unset(self, master: DictConfig, values: list[str]) -> DictConfig | None:
        """The config of a sweep with these values alone. None where the primary config is the user's, or where `master`, the
        config of the sweep, was composed elsewhere. Its `hydra` section is that of the sweep and not of a job."""
        place = next((s.path for s in master.hydra.runtime.config_sources if s.provider == "main"), None)
        if self._unset is None or (place, master.hydra.job.config_name) != OURS:
            return None
        config: DictConfig = pickle.loads(self._unset)
        OmegaConf.set_struct(config, True)
        self._apply_overrides_to_config(OverridesParser.create().parse_overrides(values), config)
        OmegaConf.copy_cache(master, config)  # what was resolved once, such as the time of day, stays
        return config
