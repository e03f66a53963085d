"""What a format in the Hugging Face layout cannot hold of a recipe, as sentences. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from blip2sweep.compression.quantize import METHODS, installed
from blip2sweep.compression.quantize.scheme import Scheme, Weights
from blip2sweep.compression.step import DROP, QUANTIZE, RECOVER
from blip2sweep.models.dtypes import NAMES
from blip2sweep.models.part import CONNECTOR, Linear
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.trained import has_adapters
from blip2sweep.wire.model_section import ModelSection

Layers = Iterable[tuple[Linear, Scheme]]


def lacks(extra: str) -> bool:
    """Whether the library of an extra is not installed."""
    return not installed(extra.replace("-", "_"))


def of_recipe(recipe: Recipe) -> Iterator[str]:
    """What no such format holds, whatever its integers are."""
    if not recipe.schemes:
        yield "no layer is quantized; right: such as part=language quant=gptq quant.bits=4"
    if has_adapters(recipe):
        yield "adapters beside the layers are no part of it; right: recover.merge=true"
    if steps := sorted(recipe.further - {DROP, RECOVER, QUANTIZE}):
        yield f"what {', '.join(steps)} leaves out is stored as if it were there; right: without it, or `blip2sweep quantize`"
    yield from each(recipe.touched(), _of_scheme)


def _of_scheme(_: Linear, scheme: Scheme) -> str | None:
    if scheme.weights.packed:
        return "packed layers are another format; right: without quant.packed"
    if scheme.input_activations:
        return "quantizers of inputs cannot be written; right: without quant.input"
    return None


def each(layers: Layers, why: Callable[[Linear, Scheme], str | None]) -> Iterator[str]:
    """The sentences that layers have, each once, with how many have it and the first of them."""
    found: dict[str, list[str]] = {}
    for layer, scheme in layers:
        if told := why(layer, scheme):
            found.setdefault(told, []).append(layer.path)
    for told, paths in found.items():
        what, _, right = told.partition("; right: ")
        counted = f"{len(paths)} layers, such as {paths[0]}" if len(paths) > 1 else paths[0]
        yield f"{what} ({counted}); right: {right}"


def no_codes(weights: Weights) -> str | None:
    """Why a method's weights are no integers with a scale and an integer zero point."""
    method, name, right = METHODS.known(weights.method), weights.method, "right: such as quant=rtn, mse, gptq or awq"
    if method.number_zero and method.has_codes:
        return f"{name} has zero points that are no integers; {right}"
    if method.prescale and method.has_codes:
        return f"{name} divides inputs by a vector of its own; {right}"
    return no_integers(weights)


def connector(recipe: Recipe, library: str) -> Iterator[str]:
    """Layers that transformers' loader for a library skips: it keeps all of a model's connector in float32."""
    found = [x for part in recipe.parts.values() if part.part.role == CONNECTOR for x, _ in part.layers]
    if found:
        yield (
            f"transformers' loader for {library} leaves the connector dense ({len(found)} layers, such as {found[0].path}); "
            f"right: a recipe that leaves it alone, or --to compressed-tensors"
        )


def no_integers(weights: Weights) -> str | None:
    """Why a method's weights are no integers with a scale and any zero point."""
    if METHODS.known(weights.method).has_codes:
        return None
    return f"{weights.method} makes no integer codes with scales; right: such as quant=rtn, mse, gptq or awq"


def tail(layer: Linear, weights: Weights) -> str | None:
    """Why the last group of a row is no group."""
    size = weights.group_size
    if size and layer.in_features % size:
        return f"group_size={size} does not divide rows of {layer.in_features}; right: a divisor"
    return None


def stored_dtypes(model: ModelSection) -> set[str]:
    """The dtypes in which what is not quantized is written."""
    one = model.get("stored")
    own = {str(model.get("dtype")), *(str(name) for name in (model.get("dtype_per_part") or {}).values() if name)}
    return {str(one)} if one in NAMES else own
