"""Layers that the library of a back end rounds (`Method.backend`): torch leaves them as they are, and the graphs that are
made of its model are compressed afterwards."""

from __future__ import annotations

from functools import lru_cache

from blip2sweep.compression.quantize import METHODS, version_of
from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.compression.step import RECOVER, SPARSITY
from blip2sweep.errors import UserError
from blip2sweep.recipe.recipe import PartRecipe, Recipe


@lru_cache(maxsize=65536)
def is_left(scheme: Scheme) -> bool:
    """Whether a back end's library rounds the layers of a scheme."""
    return METHODS[scheme.weights.method].backend is not None


@lru_cache(maxsize=65536)
def left_of(part: PartRecipe) -> dict[str, Scheme]:
    """{path: scheme} of the layers of a part that a back end's library rounds."""
    return {x.path: s for x, s in part.touched() if is_left(s)}


def left(recipe: Recipe) -> dict[str, Scheme]:
    """The same of a recipe."""
    return {path: s for part in recipe.parts.values() for path, s in left_of(part).items()}


def without(recipe: Recipe) -> Recipe:
    """The recipe without these layers: what torch puts into the model."""
    if not left(recipe):
        return recipe
    own = {n: p.requantized(lambda _, s: None if is_left(s) else s) for n, p in recipe.parts.items()}
    return Recipe(own, recipe.chosen_by)


@lru_cache(maxsize=65536)
def rounds_others(part: PartRecipe) -> bool:
    """Whether torch quantizes layers of the part."""
    return any(not is_left(s) for _, s in part.touched())


def libraries(recipe: Recipe) -> dict[str, str]:
    """{library: its version} of what rounds layers, which decides what they become."""
    methods = (METHODS[s.weights.method] for s in dict.fromkeys(left(recipe).values()))
    return {name: version_of(name) for name in sorted({m.library for m in methods if m.library})}


def check_backend(recipe: Recipe, chosen: str) -> None:
    """Raise UserError where a layer's method is that of another back end, and where its weights are to be trained, or to
    keep their zeros, which such a library does not know of. chosen: the name of the back end."""
    there = left(recipe)
    methods = {METHODS[s.weights.method].name: METHODS[s.weights.method].backend for s in there.values()}
    wrong = next((name for name, own in methods.items() if own != chosen), None)
    if wrong is not None:
        raise UserError(
            f"quant.method={wrong}: backend={methods[wrong]} rounds its layers, and this is backend={chosen}; right: "
            f"backend={methods[wrong]}, or a method of torch such as rtn"
        )
    if there and RECOVER in recipe.further:
        raise UserError(
            f"{RECOVER}: {next(iter(methods))} rounds layers after all training; right: {RECOVER}=none, or a method of torch"
        )
    sparse = {
        x.path for p in recipe.parts.values() for site, _ in p.pairs_of(SPARSITY) for x in p.layers_in(SPARSITY, site)
    }
    if both := sorted(there.keys() & sparse):
        raise UserError(
            f"{SPARSITY}: {next(iter(methods))} does not keep the zeros of {both[0]}; right: {SPARSITY}=none, or a method of torch"
        )


def check_text_only(recipe: Recipe, calibration: str) -> None:
    """Raise UserError where layers that a back end's library measures would see no pictures, which graphs read with every
    text. calibration: its name, of one without images."""
    first = next((s.weights.method for s in left(recipe).values() if s.needs), None)
    if first is not None:
        raise UserError(
            f"calibration={calibration}: has no images, which {first} measures with every text; right: calibration=task"
        )
