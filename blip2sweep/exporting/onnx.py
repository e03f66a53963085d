"""ONNX: a file of each graph, with the integers of the recipe in operators that onnxruntime has. No torch here.

What makes and writes it is in `exporting/onnx_graphs`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.compression.step import DROP, QUANTIZE
from blip2sweep.exporting.held import each, no_codes
from blip2sweep.exporting.onnx_graphs.layouts import mistake
from blip2sweep.exporting.openvino import of_model
from blip2sweep.models.part import Linear
from blip2sweep.recipe import Recipe
from blip2sweep.wire.model_section import ModelSection

if TYPE_CHECKING:
    from blip2sweep.exporting import Written
    from blip2sweep.exporting.made import Made

EXTRA: str | None = "onnx"
VERSION = 1  # of what is written of a model
GRAPHS = True  # so what no graph reads is not in it
RUNTIME = "onnxruntime"  # the back end whose own methods the files can hold


def mistakes(recipe: Recipe, model: ModelSection, purpose: str | None) -> list[str]:
    """Why ONNX cannot hold a recipe of a model. purpose: none is known."""
    own = [f"onnx serves nothing by the name of {purpose}; right: without --for"] if purpose else []
    return [*own, *of_model(model), *_of_recipe(recipe)]


def _of_recipe(recipe: Recipe) -> Iterator[str]:
    if steps := sorted(recipe.further - {DROP, QUANTIZE}):
        yield f"nothing of its own for what {', '.join(steps)} does to weights; right: without it"
    yield from each(recipe.touched(), _of_layer)


def _of_layer(layer: Linear, scheme: Scheme) -> str | None:
    own, method = scheme.weights, METHODS.known(scheme.weights.method)
    if own.packed:
        return "packed layers are torch's; right: without quant.packed"
    if scheme.input_activations:
        return "inputs are quantized by torch alone; right: without quant.input"
    if method.backend == RUNTIME:
        return None
    if not method.has_codes:  # for numbers as zero points and for prescales there are operators
        return no_codes(own)
    return mistake(own, layer.in_features)


def write(made: Made, folder: Path, purpose: str | None) -> Written:
    """Write the graphs of a model, and what its processor needs. Raises RuntimeError where a layer is not as it was made."""
    from blip2sweep.exporting.onnx_graphs.saved import write as write_graphs

    return write_graphs(made, folder)
