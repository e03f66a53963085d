"""A config loader that composes the words of a sweep once. Hydra composes them for its mode alone, and then again."""

from __future__ import annotations

from hydra._internal import hydra as inner
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

Asked = tuple[str | None, tuple[str, ...], RunMode]


def install() -> None:
    """Have Hydra's main use this loader."""
    inner.ConfigLoaderImpl = ConfigLoader  # type: ignore[misc]


class ConfigLoader(ConfigLoaderImpl):
    """Hands a config that was composed without a check out once more, to the next who asks for the same with one.

    What could not be composed is told again: Hydra takes the words for those of one cell then, and would complain of a value
    with commas in place of the mistake.
    """

    _unchecked: tuple[Asked, DictConfig] | None = None
    _failed: tuple[tuple[str, ...], Exception] | None = None

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
        if self._failed is not None and asked[1][: len(self._failed[0])] == self._failed[0]:
            raise self._failed[1]
        try:
            config = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        except Exception as error:
            self._failed = asked[1], error
            raise
        if not validate_sweep_overrides:
            self._unchecked = asked, config
        return config
