"""A config loader that composes the words of a sweep once. Hydra composes them for its mode alone, and then again."""

from __future__ import annotations

from collections.abc import Mapping

from hydra._internal import hydra as inner
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

MODE = "hydra.mode=RUN"  # what Hydra adds where it knows no mode
Asked = tuple[str | None, tuple[str, ...], RunMode]


def install() -> None:
    """Have Hydra's main use this loader."""
    inner.ConfigLoaderImpl = ConfigLoader  # type: ignore[misc]


class ConfigLoader(ConfigLoaderImpl):
    """Hands a config that was composed without a check out once more, to the next who asks for the same with one."""

    _unchecked: tuple[Asked, DictConfig] | None = None
    # Hydra swallows what is wrong when it asks for the mode. Then it takes the words for those of one run, and says that a
    # value with commas is ambiguous: what was wrong first is raised in place of that.
    _failed: Mapping[tuple[str, ...], Exception] = {}

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
        wrong: Exception | None = None
        try:
            config = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        except Exception as error:
            words = tuple(o for o in overrides if o != MODE)
            wrong = self._failed.get(words, error)
            self._failed = {words: wrong}
        else:
            self._failed = {}
        if wrong is not None:
            raise wrong
        if not validate_sweep_overrides:
            self._unchecked = asked, config
        return config
