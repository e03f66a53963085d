"""`blip2sweep model`: the models that are known, and a YAML for a checkpoint of another one."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import cast

import yaml

from blip2sweep.errors import UserError
from blip2sweep.files import make_folder, write_atomic
from blip2sweep.models.checkpoints import ask
from blip2sweep.models.fitting import model_type
from blip2sweep.models.shipped import model_config, shipped_models
from blip2sweep.wire.model_section import ModelSection
from blip2sweep.wire.pack import JsonObject

CHILD = "blip2sweep.models.discovery.child"
HEAD = "# Proposed by `blip2sweep model add`, and proven on a small random model of the same structure. Prompts are LLaVA's.\n"


def known() -> list[str]:
    """A line for each model of conf/model: its name, the model_type of its config.json, where its weights are."""
    models = [model_config(name) for name in shipped_models()]
    rows = [(str(m["name"]), model_type(m), _weights(m)) for m in models]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return [f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {where}" for name, kind, where in rows]


def _weights(model: ModelSection) -> str:
    return str(model.get("hub_id") or model.get("path"))


def add(folder: Path, config_dir: Path | None, name: str | None, partial: bool = False) -> str:
    """The YAML of a checkpoint; with `config_dir` it is written to config_dir/model/NAME.yaml, and what to type is returned.

    partial: also of a model whose weights are mostly in no linear layer. Raises UserError, one line, where something stays unclear, and for a name that is taken.
    """
    target = None if config_dir is None else _free(config_dir, name or folder.absolute().name)
    section = _proposed(folder, name, partial)
    text = HEAD + yaml.safe_dump(section, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    if config_dir is None or target is None:
        return text
    path = _free(config_dir, str(section["name"]))
    make_folder(path.parent)
    write_atomic(path, text.encode())
    return f"wrote {path}; python -m blip2sweep --config-dir {config_dir} model={section['name']} …"


def _proposed(folder: Path, name: str | None, partial: bool) -> JsonObject:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; right: one with config.json and *.safetensors")
    about = "its module tree, and a small random model of its structure"
    found = cast("JsonObject", ask(CHILD, folder, {"name": name, "partial": partial}, about, dict))
    if "refused" in found:
        raise UserError(str(found["refused"]))
    return cast("JsonObject", found["section"])


def _free(config_dir: Path, name: str) -> Path:
    """Where the YAML goes. Raises UserError where it would be in the package, or where the name is taken."""
    path = config_dir / "model" / f"{name}.yaml"
    package = Path(str(files("blip2sweep.conf"))).resolve()
    if package in (config_dir.resolve(), *config_dir.resolve().parents):
        raise UserError(f"--config-dir {config_dir}: is the package's own conf; right: a folder of your own")
    if name in shipped_models() or path.exists():
        where = "conf/model has a model of that name" if name in shipped_models() else f"{path} is there already"
        raise UserError(f"model {name}: {where}; right: --name NAME, another one")
    return path
