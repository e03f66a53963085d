"""OpenVINO's IR: a file of each graph, with the integers of the recipe in OpenVINO's own types. No torch here.

What makes and writes it is in `exporting/ir`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.compression.step import DROP, QUANTIZE
from blip2sweep.exporting.held import each, no_integers, tail
from blip2sweep.models.architecture import no_graphs
from blip2sweep.models.part import Linear
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.back_end import is_left
from blip2sweep.wire.model_section import ModelSection

if TYPE_CHECKING:
    from blip2sweep.exporting import Written
    from blip2sweep.exporting.made import Made

EXTRA: str | None = "openvino"
VERSION = 2  # of what is written of a model
GRAPHS = True  # so what no graph reads is not in it
CHECKPOINT = False  # it is no checkpoint of transformers, so any blocks may be dropped
BITS = (1, 2, 3, 4, 6, 8)  # widths of which OpenVINO 2026.4 has a type that its CPU plugin reads
FAST = (2, 4, 8)  # of these, what its kernels read as it is; the others become float32 when a graph is compiled
FLOAT32 = "float32"


def mistakes(recipe: Recipe, model: ModelSection, purpose: str | None) -> list[str]:
    """Why OpenVINO cannot hold a recipe of a model. Whoever asks has checked `purpose`: there is none."""
    own = [(x, scheme) for x, scheme in recipe.touched() if not is_left(scheme)]
    return [*of_model(model), *_of_steps(recipe), *each(own, _of_layer)]


def of_model(model: ModelSection) -> Iterator[str]:
    """Why a model cannot be graphs that compute in float32."""
    if why := no_graphs(model):
        yield why
    given = [str(x) for x in (model.get("dtype_per_part") or {}).values() if x]
    if others := sorted({str(model.get("dtype") or FLOAT32), *given} - {FLOAT32}):
        yield (
            f"graphs are made of float32, not of {', '.join(others)}; right: model.dtype=float32, with model.stored=float16 "
            f"for files of 16 bits"
        )
    if model.get("device_map"):
        yield "graphs are made in the CPU's memory; right: without model.device_map"


def _of_steps(recipe: Recipe) -> Iterator[str]:
    if steps := sorted(recipe.further - {DROP, QUANTIZE}):
        yield f"what {', '.join(steps)} makes of weights would be stored as any others; right: without it"


def _of_layer(layer: Linear, scheme: Scheme) -> str | None:
    own = scheme.weights
    if why := no_integers(own):
        return why
    if own.num_bits not in BITS:
        return f"no type of {own.num_bits} bits; right: quant.bits of {', '.join(map(str, BITS))}"
    if own.packed:
        return "packed layers are torch's; right: without quant.packed"
    if scheme.input_activations:
        return "inputs are quantized by torch alone; right: without quant.input"
    return tail(layer, own)


def write(made: Made, folder: Path, purpose: str | None) -> Written:
    """Write the IR of a model, and what its processor needs. Raises RuntimeError where a layer is not as it was made."""
    from blip2sweep.exporting.ir.folder import write as write_ir

    return write_ir(made, folder)
