"""Configs of models by name, as far as they are known here."""

from __future__ import annotations

from pathlib import Path

from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.shipped import model_config, shipped_models
from blip2sweep.results.planned import planned_models
from blip2sweep.wire.model_section import ModelSection


def shipped_section(name: str) -> ModelSection | None:
    """The config of a shipped model; None for another name."""
    return model_config(name) if name in shipped_models() else None


def model_parts(output_dir: Path, name: str) -> list[str] | None:
    """The names of a model's parts: as shipped, else as a sweep of the folder planned it. None where neither is."""
    try:
        config = shipped_section(name) or planned_models(output_dir).get(name)
        return list(anatomy(config).parts) if config else None
    except UserError:
        return None
