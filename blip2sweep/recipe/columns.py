"""The table's columns that describe a recipe: bits per part, blocks, layers, method, sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache

from blip2sweep.canonical import canonical_json
from blip2sweep.compression.step import QUANTIZE, RECOVER, SPARSITY, step
from blip2sweep.models.part import Linear
from blip2sweep.recipe.compact import block_word, describe, kind_of, number_word, targets, text
from blip2sweep.recipe.part_bits import mean_bits, role_bits
from blip2sweep.recipe.recipe import PartRecipe, Recipe
from blip2sweep.recipe.size import Numbers, size
from blip2sweep.recipe.trained import on_grid, rewritten

MIXED = "mixed"


def recipe_columns(recipe: Recipe, numbers: Numbers) -> dict[str, object]:
    """Columns of one recipe: those of quantization, which every row has, those of the other steps it has, and sizes.

    bits_<part> is the mean number of bits over the part's touched weights, so 4 means 4 for all of them. It is None
    where the part is left alone. bits_<role> is the same over all parts of a role. blocks, layers, method, … are one
    word where the touched parts agree, else `mixed` or one word for each part. numbers: of the model without the recipe.
    """
    touched = {n: p for n, p in recipe.parts.items() if not p.empty}
    quantized = {n: p for n, p in touched.items() if p.layers} or {
        n: p for n, p in touched.items() if p.pairs_of(SPARSITY)
    }
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
        **_of_other_steps(recipe, listed),
        **asdict(size(recipe, numbers)),
    }


def _of_other_steps(recipe: Recipe, listed: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """blocks_dropped, such as `vision:4-5 language:0` in the model's own names; sparsity and recover in a word, merged.

    recover says where trained layers are quantized again, and where they are no longer on a grid. sparsity is None
    where training has filled all zeros.
    """
    named = {n: number_word(p.dropped) for n, p in recipe.parts.items() if p.dropped}
    trained, grid = [e for e in listed if kind_of(e) == RECOVER], on_grid(recipe)
    words = [step(RECOVER).text({**e, "merged": None}) + (f", {grid}" if grid else "") for e in trained]
    return {
        **({"blocks_dropped": " ".join(f"{n}:{blocks}" for n, blocks in named.items())} if named else {}),
        **({SPARSITY: _one(_sparsity_words(recipe))} if SPARSITY in recipe.further else {}),
        **({RECOVER: _one(words), "merged": _one([e.get("merged") for e in trained])} if trained else {}),
    }


def _sparsity_words(recipe: Recipe) -> list[str | None]:
    """A word for each way in which layers are sparse; None for layers whose zeros training has filled."""
    sparse = step(SPARSITY)
    pairs = [(site.path in rewritten(p), s) for p in recipe.parts.values() for site, s in p.pairs_of(SPARSITY)]
    return [None if filled else sparse.text(sparse.to_entry(s)) for filled, s in dict.fromkeys(pairs)]


def _part_word(touched: dict[str, PartRecipe], recipe: Recipe) -> str:
    if not touched:
        return "none"
    return "all" if len(touched) == len(recipe.parts) else "+".join(touched)


@lru_cache(maxsize=65536)
def _blocks_and_layers(part: PartRecipe) -> tuple[str, str]:
    """(blocks, layers) of all that is quantized in a part, whatever the schemes; if nothing is, of what is made sparse."""
    sparse = (site for site, _ in part.pairs_of(SPARSITY) if isinstance(site, Linear))
    layers = [x for x, _ in part.touched()] or [*sparse]
    pairs = describe(part.left, layers)
    if len(pairs) == 1:
        return pairs[0]
    return block_word(part.left, {x.block for x in layers}), MIXED


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
