"""The formats in which a cell's model is handed out, by name. No torch here, so that planning can ask what a format holds.

A format is a module with the names of `Format`. What it cannot hold is said before anything is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from blip2sweep.errors import UserError, nearest
from blip2sweep.recipe import Recipe
from blip2sweep.wire.model_section import ModelSection

if TYPE_CHECKING:
    from blip2sweep.exporting.made import Made

FORMATS: Mapping[str, str] = {
    "compressed-tensors": "blip2sweep.exporting.compressed_tensors",
    "openvino": "blip2sweep.exporting.openvino",
    "onnx": "blip2sweep.exporting.onnx",
    "tensorrt-llm": "blip2sweep.exporting.tensorrt_llm",
    "torchao": "blip2sweep.exporting.torchao",
    "bitsandbytes": "blip2sweep.exporting.bitsandbytes",
}
OWN: Mapping[str, str] = {"openvino": "openvino", "onnxruntime": "onnx"}  # {back end: the format it runs}
SERVED: Mapping[str, str] = {"vllm": "compressed-tensors"}  # {who serves: the format that it reads}


class Written(NamedTuple):
    """What was written. payload: bytes of numbers. around: bytes of headers, graphs and texts. notes: for people."""

    payload: int
    around: int
    notes: Sequence[str] = ()


class Format(Protocol):
    """The names of a format's module. Planning imports it, so it imports torch and its library only in `write`.

    EXTRA: the extra that has its library; None where none is needed. One that is no checkpoint of transformers has
    CHECKPOINT = False besides, and one that writes what graphs read, and nothing else, GRAPHS = True.
    """

    EXTRA: str | None

    def mistakes(self, recipe: Recipe, model: ModelSection, purpose: str | None) -> list[str]:
        """Why the format cannot hold a recipe of a model, each in one sentence; empty where it can.

        purpose: who is to serve it (`--for`).
        """

    def write(self, made: Made, folder: Path, purpose: str | None) -> Written:
        """Write a model to a folder that exists and is empty. Whoever calls it removes the folder where it fails."""


def format_of(name: str) -> Format:
    """A format by name. Raises UserError for an unknown one."""
    if name not in FORMATS:
        raise UserError(f"--to {name}: no such format; {nearest(name, FORMATS)}")
    return cast("Format", import_module(FORMATS[name]))
