"""TensorRT-LLM: what builds and runs its engines of BLIP-2 with OPT. No torch here; `exporting/engines` writes it.

An engine rounds by itself: its int8 and int4 variants are TensorRT-LLM's own, of the dense model. So what it writes is
measured by importing its texts (`blip2sweep import predictions`), and is never this cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.compression.step import DROP, QUANTIZE, SPARSITY
from blip2sweep.exporting.held import each
from blip2sweep.exporting.openvino import of_model
from blip2sweep.models.architecture import FIRST
from blip2sweep.models.part import Linear
from blip2sweep.recipe import Recipe
from blip2sweep.wire.model_section import ModelSection

if TYPE_CHECKING:
    from blip2sweep.exporting import Written
    from blip2sweep.exporting.made import Made

EXTRA: str | None = "onnx"
ENGINES_OF = FIRST  # the architecture that its scripts are for


def mistakes(recipe: Recipe, model: ModelSection, purpose: str | None) -> list[str]:
    """Why there are no engines of a recipe of a model. purpose: none is known."""
    own = [f"tensorrt-llm serves nothing by the name of {purpose}; right: without --for"] if purpose else []
    return [*own, *_of_model(model), *_of_recipe(recipe)]


def _of_model(model: ModelSection) -> Iterator[str]:
    named = str(model.get("architecture") or FIRST)
    if named != ENGINES_OF:
        yield f"engines are built of {ENGINES_OF} with OPT here, and model {model['name']} is {named}; right: such a model"
        return
    yield from of_model(model)


def _of_recipe(recipe: Recipe) -> Iterator[str]:
    if steps := sorted(recipe.further - {DROP, SPARSITY, QUANTIZE}):
        yield f"what {', '.join(steps)} adds has no place in an engine; right: without it"
    yield from each(recipe.touched(), _of_layer)


def _of_layer(layer: Linear, scheme: Scheme) -> str:
    return (
        "TensorRT-LLM rounds weights by itself and takes no integers of others; right: quant.bits=none: its scripts build "
        "int8 and int4 variants of the dense model, and `blip2sweep import predictions` makes rows of them"
    )


def write(made: Made, folder: Path, purpose: str | None) -> Written:
    """Write checkpoint, graphs, a test picture, the task's samples and scripts."""
    from blip2sweep.exporting.engines.written import write as write_engines

    return write_engines(made, folder)
