"""A shipped model's config read from its YAML files alone, so that importing needs neither Hydra nor weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

from blip2sweep.errors import UserError, nearest
from blip2sweep.models.anatomy import Anatomy, anatomy


def shipped_models() -> list[str]:
    """Names of the models in conf/model."""
    names = (p.name for p in (files("blip2sweep.conf") / "model").iterdir())
    return sorted(n.removesuffix(".yaml") for n in names if n.endswith(".yaml") and not n.startswith("_"))


def model_config(name: str) -> dict[str, Any]:
    """The composed config of a shipped model. Raises UserError for another name."""
    if name not in shipped_models():
        raise UserError(f"model {name}: not a model of conf/model; {nearest(name, shipped_models())}")
    return _composed(name)


@lru_cache
def model_anatomy(name: str) -> Anatomy:
    return anatomy(model_config(name))


def _composed(name: str) -> dict[str, Any]:
    """Files of the defaults list one after the other, `_self_` where it stands; later values win."""
    own = yaml.safe_load((files("blip2sweep.conf") / "model" / f"{name}.yaml").read_text())
    found: dict[str, Any] = {}
    for entry in own.pop("defaults", ["_self_"]):
        found = _merged(found, own if entry == "_self_" else _composed(entry))
    return found


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {k: _merged(base[k], v) if _nested(base.get(k), v) else v for k, v in over.items()}
    return {**base, **both}


def _nested(one: Any, other: Any) -> bool:
    return isinstance(one, Mapping) and isinstance(other, Mapping)
