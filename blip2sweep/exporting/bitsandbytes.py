"""bitsandbytes' own tensors, as transformers' `BitsAndBytesConfig` loads them: NF4, FP4, or int8 of rows. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.exporting import Written, held
from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.dtypes import stage_dtypes
from blip2sweep.models.part import Linear
from blip2sweep.recipe import Recipe
from blip2sweep.wire.model_section import ModelSection

if TYPE_CHECKING:
    from blip2sweep.exporting.made import Made

EXTRA = "bitsandbytes"
METHODS = ("nf4", "fp4", "int8")


def mistakes(recipe: Recipe, model: ModelSection, purpose: str | None) -> list[str]:
    """Why the format cannot hold a recipe."""
    own = [*held.of_recipe(recipe), *held.connector(recipe, EXTRA), *held.each(recipe.touched(), _why)]
    used = sorted({s.weights.method for s in recipe.schemes.values()} & set(METHODS))
    if len(used) > 1:
        own.append(f"it loads one method a model, and this has {', '.join(used)}; right: one of them")
    if model.get("stored") and len(dtypes := set(stage_dtypes(model, anatomy(model)).values())) > 1:
        own.append(
            f"its loader keeps numbers as they are stored, and this computes in {', '.join(sorted(dtypes))}; right: "
            f"model.stored=null, or one dtype for all parts"
        )
    return own


def _why(_: Linear, scheme: Scheme) -> str | None:
    if scheme.weights.method not in METHODS:
        return f"{scheme.weights.method} is none of its own; right: quant=nf4, fp4 or int8, or --to compressed-tensors"
    return None


def write(made: Made, folder: Path, purpose: str | None) -> Written:
    """Write the checkpoint. Raises UserError where the library's tensors are not the cell's weights."""
    from blip2sweep.exporting.library_tensors import write_bitsandbytes

    return write_bitsandbytes(made, folder)
