"""compressed-tensors, `pack-quantized`: integers of 1 to 8 bits, densely packed, with scales and zero points.

transformers and vLLM read it. Codes are signed there: a code and its zero point have 2^(bits - 1) less than ours. No
torch is imported before something is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.exporting import Written, held, vllm
from blip2sweep.models.part import Linear
from blip2sweep.recipe import Recipe
from blip2sweep.wire.model_section import ModelSection

if TYPE_CHECKING:
    from blip2sweep.exporting.made import Made

EXTRA = "compressed-tensors"
VLLM = "vllm"
PURPOSES = (VLLM,)


def mistakes(recipe: Recipe, model: ModelSection, purpose: str | None) -> list[str]:
    """Why the format, or vLLM's classes where purpose is `vllm`, cannot hold a recipe."""
    own = [*held.of_recipe(recipe), *held.each(recipe.touched(), _why)]
    return [*own, *(vllm.mistakes(recipe, model) if purpose == VLLM else ())]


def _why(layer: Linear, scheme: Scheme) -> str | None:
    return held.no_codes(scheme.weights) or held.tail(layer, scheme.weights)


def write(made: Made, folder: Path, purpose: str | None) -> Written:
    """Write the checkpoint, and `load.py`, which loads it with transformers and compressed-tensors alone."""
    from blip2sweep.exporting.packed import write_packed

    return write_packed(made, folder, purpose == VLLM)
