"""torchao's own tensors in safetensors, as transformers' `TorchAoConfig` loads them: 8 bits, or float8. No torch here.

Fewer bits take 8 there too: torchao packs 4 bits for CUDA's kernels alone, and no other width.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.exporting import Written, held
from blip2sweep.models.part import Linear
from blip2sweep.recipe import Recipe
from blip2sweep.wire.model_section import ModelSection

if TYPE_CHECKING:
    from blip2sweep.exporting.made import Made

EXTRA = "torchao"
FLOAT8 = "float8"


def mistakes(recipe: Recipe, model: ModelSection, purpose: str | None) -> list[str]:
    """Why the format cannot hold a recipe."""
    return [*held.of_recipe(recipe), *held.connector(recipe, EXTRA), *held.each(recipe.touched(), _why)]


def _why(layer: Linear, scheme: Scheme) -> str | None:
    w = scheme.weights
    if w.method == FLOAT8:
        return None
    if why := held.no_codes(w) or held.tail(layer, w):
        return why
    if w.num_bits != 8 or w.strategy == "tensor":
        told = "one scale a tensor" if w.num_bits == 8 else f"{w.num_bits} bits, which it stores as 8"
        return f"no packed type for {told}; right: quant.bits=8 by row or group, or --to compressed-tensors"
    return None


def write(made: Made, folder: Path, purpose: str | None) -> Written:
    """Write the checkpoint. Raises UserError where the library's tensors are not the cell's weights."""
    from blip2sweep.exporting.library_tensors import write_torchao

    return write_torchao(made, folder)
