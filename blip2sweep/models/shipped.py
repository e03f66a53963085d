"""The config of a shipped model, read from its YAML files alone. It needs neither Hydra nor weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import yaml

from blip2sweep.errors import UserError, nearest
from blip2sweep.models.anatomy import Anatomy, anatomy
from blip2sweep.wire.model_section import ModelSection

FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # an eighth of the time, where it was compiled


def shipped_models() -> list[str]:
    """Names of the models in conf/model."""
    names = (p.name for p in _folder().iterdir())
    return sorted(n.removesuffix(".yaml") for n in names if n.endswith(".yaml") and not n.startswith("_"))


def model_config(name: str) -> ModelSection:
    """The composed config of a shipped model. Raises UserError for another name."""
    if name not in shipped_models():
        raise UserError(f"model {name}: not a model of conf/model; {nearest(name, shipped_models())}")
    return cast("ModelSection", _composed(name))


def shared(name: str) -> dict[str, object]:
    """A file of conf/model that models have in common, such as `_prompts`."""
    return _composed(name)


@lru_cache
def model_anatomy(name: str) -> Anatomy:
    return anatomy(model_config(name))


def _folder() -> Path:
    """conf/model. The package `blip2sweep.conf` is found and not imported, because it imports Hydra."""
    spec = find_spec("blip2sweep.conf")
    assert spec is not None
    return Path(next(iter(spec.submodule_search_locations or ()))) / "model"


def _composed(name: str) -> dict[str, object]:
    """The files of the defaults list merged in order, `_self_` where it stands. Later values win."""
    own = yaml.load((_folder() / f"{name}.yaml").read_text(), FAST)
    found: dict[str, object] = {}
    for entry in own.pop("defaults", ["_self_"]):
        found = _merged(found, own if entry == "_self_" else _composed(entry))
    return found


def _merged(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    both = {k: _over(base.get(k), v) for k, v in over.items()}
    return {**base, **both}


def _over(below: object, value: object) -> object:
    return _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
