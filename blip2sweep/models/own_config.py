"""config.json of a folder as transformers reads it, asked once of a child process. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, cast

from blip2sweep import outside
from blip2sweep.cache import disk as cache
from blip2sweep.canonical import digest
from blip2sweep.errors import UserError
from blip2sweep.models.architecture import FIRST
from blip2sweep.models.checkpoints import ask, versions
from blip2sweep.models.checkpoints.content import STORE
from blip2sweep.models.config_file import read_object
from blip2sweep.wire.model_section import ModelSection
from blip2sweep.wire.pack import JsonObject

MODULE = "blip2sweep.models.written_out"  # the child


class OwnConfig(NamedTuple):
    """data: config.json. full: with all that transformers fills in. classes: {model of conf/model: name of its class}."""

    data: Mapping[str, object]
    full: Mapping[str, object]
    classes: Mapping[str, str | None]


def read(folder: Path, models: Mapping[str, ModelSection]) -> OwnConfig:
    """The config of a folder. models: those whose classes are wanted. Raises UserError, all mistakes in one line."""
    data, wrong = read_object(folder / "config.json")
    if data is None:
        raise UserError(f"model.path={folder}: {'; '.join(wrong)}; right: a folder with config.json and *.safetensors")
    question = {name: _short(model) for name, model in models.items()}
    found = _remembered(folder, data, question)
    if "mistakes" in found:
        raise UserError(
            f"model.path={folder}: {'; '.join(cast('list[str]', found['mistakes']))}; right: a whole checkpoint"
        )
    classes = cast("Mapping[str, str | None]", found["classes"])
    return OwnConfig(data, cast("Mapping[str, object]", found["config"]), classes)


def _short(model: ModelSection) -> JsonObject:
    """What names the class of a model."""
    own = {"model_type": model["config"].get("model_type")}
    return {"architecture": model.get("architecture") or FIRST, "config": own}


def _remembered(folder: Path, data: Mapping[str, object], models: Mapping[str, JsonObject]) -> JsonObject:
    code = outside.codes([("architectures", str(m["architecture"])) for m in models.values()])
    question: JsonObject = {"models": models, **({"outside": code} if code else {})}
    name, store = digest(["written out", data, question, versions()]), cache.of_user(STORE)
    known = store.get(name) if store else None
    if known is not None:
        return cast("JsonObject", json.loads(known))
    found = cast("JsonObject", ask(MODULE, folder, question, "its config", dict))
    if store and "mistakes" not in found:
        store.put(name, json.dumps(found).encode())
    return found
