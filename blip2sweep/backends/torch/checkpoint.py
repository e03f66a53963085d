"""Writes a model as it runs now to a folder in the Hugging Face layout."""

from __future__ import annotations

from pathlib import Path

from blip2sweep.compression.undo import Undo
from blip2sweep.models import shorter
from blip2sweep.models.load import Loaded
from blip2sweep.wire.model_section import ModelSection


def write_model(loaded: Loaded, section: ModelSection, to: Path) -> None:
    """Write weights, config and processor. Where blocks are dropped, the checkpoint is that of a shorter model.

    section: the composed `model` section. Raises UserError, one line, where transformers could not load the model as it
    runs.
    """
    with Undo() as undo:
        for change in shorter.changes(loaded.model, section):
            undo.attribute(*change)
        loaded.model.save_pretrained(to)
        loaded.processor.save_pretrained(to)
