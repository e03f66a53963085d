"""Composes the configs of a sweep: lists of overrides become plain dicts.

Hydra composes once for each distinct choice of groups, which takes 40 ms. Each distinct value override is checked once
against the typed config. The configs of cells are then made by setting values in plain dicts, which takes microseconds.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from blip2sweep import outside
from blip2sweep.canonical import canonical_json
from blip2sweep.config import composed_once
from blip2sweep.config.experiment import Alike, check_hydra_of, check_model_of, named
from blip2sweep.config.grid import Job
from blip2sweep.config.overrides import check_keys, explain, parse, refuse_options_of_none
from blip2sweep.config.schema import GROUPS, OPEN
from blip2sweep.console.quoting import override
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy, anatomy
from blip2sweep.models.own_folder import OwnFolders
from blip2sweep.models.shipped import shipped_models
from blip2sweep.wire.model_section import ModelSection

Choice = tuple[str, ...]  # overrides that choose from groups
NOTHING = "quant=none"  # beside it no option of quantization counts, whichever other methods a sweep has


class Value(NamedTuple):
    """A typed override: the keys from the root of the config, and the value."""

    path: tuple[str, ...]
    value: object


def folders(config: DictConfig) -> list[Path]:
    """The folders with the user's own YAML and, beside it, Python files: `--config-dir` and `hydra.searchpath`."""
    sources = OmegaConf.select(config, "hydra.runtime.config_sources") or []
    return [Path(s.path) for s in sources if s.schema == "file"]


def with_own_folder(config: dict[str, Any], typed: Iterable[Override], own: OwnFolders) -> dict[str, Any]:
    """The config of a cell, with the model of a folder where one is typed and no model is named."""
    keys = {override.key_or_group for override in typed}
    if "model" in keys:
        return config
    return {**config, "model": own.settled(config["model"], {key for key in keys if key.startswith("model.")})}


class Composer:
    """Composes the configs of the cells of one command. What several cells share is composed once."""

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self.loader = loader
        self.master = master
        self._parsed: dict[str, Override] = {}
        self._bases: dict[Choice, tuple[bytes, dict[str, Any]]] = {}
        self._values: dict[tuple[Choice, str], Value] = {}
        self._anatomies: dict[str, Anatomy] = {}
        self._alike = Alike()
        outside.search(folders(master))

    def check(self, arguments: list[str]) -> None:
        """Raise UserError for an argument that names no key or group, or that no cell would use, before anything is
        expanded."""
        parsed = parse(arguments)
        check_keys(parsed, self.options)
        refuse_options_of_none(parsed)

    def options(self, group: str) -> list[str]:
        """The choices of a config group, those in its folders as `folder/name`. A file whose name begins with `_` is a piece
        of other files and no choice."""
        names = [n for n in self._listed(group, ObjectType.CONFIG) if not n.startswith("_")]
        inner = self._listed(group, ObjectType.GROUP)
        return [*names, *(f"{folder}/{name}" for folder in inner for name in self.options(f"{group}/{folder}"))]

    def _listed(self, group: str, kind: ObjectType) -> list[str]:
        return self.loader.get_group_options(group, kind, config_name="config", overrides=self._searched)

    def config(self, job: Job) -> dict[str, Any]:
        """The resolved config of one cell as a plain dict. Sections that no override changes are shared objects."""
        choice = tuple(o for o in job if self._override(o).key_or_group in GROUPS)
        config = self._base(choice)[1]
        for text in job:
            if text not in choice and not (NOTHING in choice and text.startswith("quant.")):
                path, value = self._value(choice, text)
                config = _with(config, path, value)
        if experiment := named(choice):
            self._alike.check(experiment, config)
        return with_own_folder(config, [self._override(o) for o in job], self._own)

    @cached_property
    def _own(self) -> OwnFolders:
        return OwnFolders(lambda: [n for n in self.options("model") if n not in shipped_models()], self._named)

    def _named(self, name: str) -> ModelSection:
        return cast("ModelSection", self._base((f"model={name}",))[1]["model"])

    def value(self, job: Job, key: str) -> object:
        """The value of a top-level key in the config of one cell."""
        return self.config(job)[key]

    def anatomy(self, job: Job) -> Anatomy:
        """The anatomy of the model of one cell."""
        model = self.config(job)["model"]
        name = canonical_json(model)
        if name not in self._anatomies:
            self._anatomies[name] = anatomy(model)
        return self._anatomies[name]

    def study(self, job: Job) -> list[list[str]] | None:
        """The override lists of the study that a job names, or that its experiment holds; None where there is none.

        Raises UserError for a study that is not a list of them.
        """
        chosen = next((o for o in job if o.startswith("study=")), None) or named(job)
        lists = self._base((chosen,))[1]["study"] if chosen else None
        return None if lists is None or chosen is None else self._checked_study(lists, chosen)

    def _checked_study(self, lists: object, chosen: str) -> list[list[str]]:
        texts = isinstance(lists, list) and all(
            isinstance(x, list) and all(isinstance(o, str) for o in x) for x in lists
        )
        if not texts:
            raise UserError(
                f"{chosen}: not a list of override lists; right: study: [[part=vision, 'quant.bits=2,4'], …]"
            )
        assert isinstance(lists, list)
        for line in lists:
            self.check(line)
        return lists

    def _override(self, text: str) -> Override:
        if text not in self._parsed:
            self._parsed[text] = parse([text])[0]
        return self._parsed[text]

    def _base(self, choice: Choice) -> tuple[bytes, dict[str, Any]]:
        """(config, resolved config). The first is pickled: to load it takes a fifth of the time of a deep copy."""
        if choice not in self._bases:
            config = self._compose(choice)
            plain = OmegaConf.to_container(config, resolve=True)
            assert isinstance(plain, dict)
            self._bases[choice] = (pickle.dumps(config), {str(k): v for k, v in plain.items()})
        return self._bases[choice]

    def _compose(self, choice: Choice) -> DictConfig:
        config = self._of_master(choice) or self._loaded(choice)
        if experiment := named(choice):
            check_hydra_of(experiment, config, self.master)
            if not any(o.startswith("model=") for o in choice):
                check_model_of(experiment, config, self._loaded([o for o in choice if o != experiment]))
        OmegaConf.set_struct(config, False)
        config.pop("hydra")
        OmegaConf.set_struct(config, True)
        return config

    def _of_master(self, choice: Choice) -> DictConfig | None:
        """What was composed for the sweep, before values were set; None where other groups were chosen there."""
        typed = tuple(o for o in self.master.hydra.overrides.task if self._override(o).key_or_group in GROUPS)
        if typed != choice or named(choice) or not isinstance(self.loader, composed_once.ConfigLoader):
            return None
        return self.loader.unset(self.master, self._interpolated)

    def _loaded(self, choice: Sequence[str]) -> DictConfig:
        return copy.deepcopy(self.loader.load_sweep_config(self.master, [*choice, *self._interpolated]))

    @cached_property
    def _interpolated(self) -> list[str]:
        """The override of output_dir, which Hydra always composes because other values may contain `${output_dir}`."""
        typed = any(o.startswith("output_dir=") for o in self.master.hydra.overrides.task)
        return [override("output_dir", self.master.output_dir)] if typed else []

    @cached_property
    def _searched(self) -> list[str]:
        """The overrides of hydra.searchpath, which lists the folders with the user's own models and tasks."""
        return [o for o in self.master.hydra.overrides.hydra if o.lstrip("+").startswith("hydra.searchpath")]

    def _value(self, choice: Choice, text: str) -> Value:
        if (choice, text) not in self._values:
            self._values[choice, text] = self._typed(choice, self._override(text))
        return self._values[choice, text]

    def _typed(self, choice: Choice, override: Override) -> Value:
        path = tuple(override.key_or_group.split("."))
        if override.key_or_group.startswith(OPEN):
            return Value(path, override.value())
        config: DictConfig = pickle.loads(self._base(choice)[0])
        try:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
            value = OmegaConf.select(config, override.key_or_group)
        except (OmegaConfBaseException, HydraException) as error:
            raise UserError(f"{override.input_line}: {explain(error, override.key_or_group)}") from error
        return Value(path, OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)


def _with(config: Mapping[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    """A copy of the config with one value set. Only the sections along the path are copied; all others are shared."""
    head, *rest = path
    inner = config.get(head)
    changed = _with(inner if isinstance(inner, Mapping) else {}, tuple(rest), value) if rest else value
    return {**config, head: changed}
