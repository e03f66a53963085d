"""The table's columns that describe a recipe: bits per part, blocks, layers, method, sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache

from blip2sweep.canonical import canonical_json
from blip2sweep.compression.step import QUANTIZE
from blip2sweep.recipe.compact import block_word, describe, kind_of, targets, text
from blip2sweep.recipe.part_bits import mean_bits, role_bits
from blip2sweep.recipe.recipe import PartRecipe, Recipe
from blip2sweep.recipe.size import size

MIXED = "mixed"


def recipe_columns(recipe: Recipe, model_params: int) -> dict[str, object]:
    """Columns of one recipe: those of quantization, which every row has, and those of the sizes.

    bits_<part> is the mean number of bits over the part's touched weights, so 4 means 4 for all of them. It is None
    where the part is left alone. bits_<role> is the same over all parts of a role. blocks, layers, method, … are one
    word where the touched parts agree, else `mixed` or one word for each part.
    """
    touched = {n: p for n, p in recipe.parts.items() if not p.empty}
    quantized = {n: p for n, p in touched.items() if p.layers}
    listed = targets(recipe)
    entries = [e for e in listed if kind_of(e) == QUANTIZE]
    return {
        "part": _part_word(touched, recipe),
        **{f"bits_{n}": mean_bits([p]) for n, p in recipe.parts.items()},
        **role_bits(recipe),
        "blocks": _agreed({n: _blocks_and_layers(p)[0] for n, p in quantized.items()}),
        "layers": _agreed({n: _blocks_and_layers(p)[1] for n, p in quantized.items()}),
        "method": _one([e["method"] for e in entries]),
        "strategy": _one([e["strategy"] for e in entries]),
        "group_size": _one([e["group_size"] for e in entries if "group_size" in e]),
        "symmetric": _one([e["symmetric"] for e in entries if "symmetric" in e]),
        "input_bits": _one([_input_bits(e) for e in entries]),
        "recipe": text(listed),
        "recipe_json": canonical_json(listed),
        **asdict(size(recipe, model_params)),
    }


def _part_word(touched: dict[str, PartRecipe], recipe: Recipe) -> str:
    if not touched:
        return "none"
    return "all" if len(touched) == len(recipe.parts) else "+".join(touched)


@lru_cache(maxsize=65536)
def _blocks_and_layers(part: PartRecipe) -> tuple[str, str]:
    """(blocks, layers) of everything the recipe touches in a part, whatever the schemes."""
    pairs = describe(part.part, [x for x, _ in part.touched()])
    if len(pairs) == 1:
        return pairs[0]
    return block_word(part.part, {x.block for x, _ in part.touched()}), MIXED


def _agreed(by_part: dict[str, str]) -> str | None:
    if len(set(by_part.values())) <= 1:
        return next(iter(by_part.values()), None)
    return " ".join(f"{part}:{word}" for part, word in by_part.items())


def _input_bits(entry: Mapping[str, object]) -> object:
    inputs = entry.get("input")
    return inputs.get("bits") if isinstance(inputs, Mapping) else None


def _one(values: Sequence[object]) -> object:
    distinct = list(dict.fromkeys(values))
    return distinct[0] if len(distinct) == 1 else (MIXED if distinct else None)
