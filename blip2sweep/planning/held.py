"""Checkpoints whose layers are integers already: what a row says of them, and what may still be done to the others.

Such a model is evaluated as it is. Its widths are those of its files, and its size is all that they hold.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from blip2sweep.canonical import canonical_json
from blip2sweep.compression.quantize import METHODS
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.block_params import names_in_files
from blip2sweep.models.checkpoints import Weights, listed
from blip2sweep.models.checkpoints.headers import BITS
from blip2sweep.models.checkpoints.packed import Packed
from blip2sweep.models.checkpoints.quantized import COMPRESSED
from blip2sweep.models.part import ROLES, Linear, Part
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.compact import describe, text

COUNTED = 16  # bits of a number of the original, to which a ratio compares
MIXED = "mixed"


@dataclass(frozen=True, eq=False)
class Held:
    """What a checkpoint holds. layers: {path in the model: its integers} of the parts' layers; others: those elsewhere.

    bits: all that is stored in the files. number_bits: of most of their numbers that are not quantized.
    """

    layers: Mapping[str, Packed]
    others: Sequence[Packed]
    bits: int
    number_bits: int

    @property
    def all(self) -> Sequence[Packed]:
        return (*self.layers.values(), *self.others)


def held(weights: Weights, anatomy: Anatomy) -> Held | None:
    """None for a plain checkpoint."""
    if not weights.packed:
        return None
    paths = names_in_files(weights.tensors, anatomy)
    inside = {paths[name]: x for name, x in weights.packed.items() if name in paths}
    others = [x for name, x in weights.packed.items() if name not in paths]
    packed, plain = {f"{name}.weight" for name in weights.packed}, Counter[int]()
    for name, tensor in weights.tensors.items():
        plain[BITS[tensor.dtype]] += 0 if name in packed else math.prod(tensor.shape)
    return Held(inside, others, weights.bits, plain.most_common(1)[0][0])


def check_untouched(own: Held, recipe: Recipe) -> None:
    """Raise UserError where a recipe would change layers that are integers already."""
    touched = {*recipe.schemes, *recipe.layers_of_further_steps} & own.layers.keys()
    for part in recipe.parts.values():
        if any(METHODS[m].folds for m in part.methods):  # the layers before take the scales
            touched |= {x.path for x in part.part.linears} & own.layers.keys()
    if touched:
        raise UserError(
            f"model.path: {len(touched)} layers of the recipe are integers in the checkpoint already ({checkpoint_word(own)}; "
            f"such as {listed(sorted(touched), 1)}); right: layers that it leaves alone, or part=none for the model as it is"
        )


def refuse_graphs(own: Held, backend: str) -> NoReturn:
    """Raise UserError: graphs hold such layers as plain numbers, and the row's size is that of the files."""
    raise UserError(
        f"backend={backend}: model.path's layers are integers already ({checkpoint_word(own)}), which graphs would hold as "
        f"numbers; right: backend=torch, or the checkpoint it was made from"
    )


# ---- columns


def held_columns(
    own: Held, recipe: Recipe, anatomy: Anatomy, columns: Mapping[str, object], untouched: Mapping[str, object],
    compared: bool,
) -> dict[str, object]:  # fmt: skip
    """The columns of a recipe with what the checkpoint itself is put beside it.

    columns, untouched: of the recipe, and of the empty one, on a plain checkpoint. compared: with an original. What the
    row's recipe is then is all that the original does not have; else it is what is done to the checkpoint.
    """
    entries = [e for p in anatomy.parts.values() for e in _entries(p, own)]
    told = {
        **columns,
        **{f"bits_{n}": _mean([n], own, recipe, anatomy) for n in anatomy.parts},
        **_role_bits(own, recipe, anatomy),
        "checkpoint": checkpoint_word(own),
        **_sizes(own, columns, untouched),
    }
    if compared or recipe.empty:
        told |= {k: _one([*v, *([] if recipe.empty else [columns[k]])]) for k, v in _words(entries).items()}
        told["recipe"] = "; ".join([text(entries), *([] if recipe.empty else [str(columns["recipe"])])])
    if compared:
        told |= {"part": _part(own, recipe, anatomy), "recipe_json": _together(entries, str(columns["recipe_json"]))}
    return told


def _part(own: Held, recipe: Recipe, anatomy: Anatomy) -> str:
    held_by = {n for n, p in anatomy.parts.items() if any(x.path in own.layers for x in p.linears)}
    named = [n for n in anatomy.parts if n in held_by or not recipe.parts[n].empty]
    return "all" if len(named) == len(anatomy.parts) else "+".join(named) or "none"


def _words(entries: Sequence[Mapping[str, object]]) -> dict[str, list[object]]:
    """{column: its values in the entries}."""
    places = [str(e["target"]).split(":") for e in entries]
    own = {k: [e.get(k) for e in entries] for k in ("method", "strategy", "group_size", "symmetric")}
    return {"blocks": [p[1] for p in places], "layers": [p[2] for p in places], **own}


def checkpoint_word(own: Held) -> str:
    """Such as `gptq 4 bits, groups of 128, symmetric`."""
    return " and ".join(dict.fromkeys(map(_scheme_word, own.all)))


def _scheme_word(x: Packed) -> str:
    scheme = x.scheme
    size = f"groups of {scheme.group_size}" if scheme.group_size else f"one scale a {_SCOPES[scheme.strategy]}"
    form = f" ({x.quantized.format})" if x.quantized.method == COMPRESSED else ""
    bits = f"{scheme.bits} bit{'s' if scheme.bits > 1 else ''}"
    return f"{x.quantized.method}{form} {bits}, {size}, {'symmetric' if scheme.symmetric else 'asymmetric'}"


_SCOPES = {"tensor": "tensor", "channel": "row", "group": "row"}


def _entries(part: Part, own: Held) -> list[dict[str, object]]:
    """The layers of a part as a recipe would name them. Their method is no method of ours."""
    by_scheme: dict[tuple[object, ...], list[Linear]] = {}
    for x in (x for x in part.linears if x.path in own.layers):
        there = own.layers[x.path]
        by_scheme.setdefault((there.quantized.method, there.scheme), []).append(x)
    return [
        {"target": f"{part.name}:{blocks}:{layers}", **_entry(own.layers[linears[0].path])}
        for linears in by_scheme.values()
        for blocks, layers in describe(part, linears)
    ]


def _entry(x: Packed) -> dict[str, object]:
    size = {"group_size": x.scheme.group_size} if x.scheme.group_size else {}
    method = f"{x.quantized.method.replace('-', '_')}_checkpoint"
    head = {"method": method, "bits": x.scheme.bits, "strategy": x.scheme.strategy}
    return {**head, **size, "symmetric": x.scheme.symmetric}


def _together(entries: Sequence[Mapping[str, object]], recipe_json: str) -> str:
    inner = recipe_json.strip()[1:-1]
    return f"[{','.join(w for w in (canonical_json(list(entries))[1:-1], inner) if w)}]"


def _mean(parts: Iterable[str], own: Held, recipe: Recipe, anatomy: Anatomy) -> float | None:
    """The mean width of the layers of some parts that are integers, by the checkpoint or by the recipe."""
    widths = [
        (x.weights, own.layers[x.path].scheme.bits)
        for n in parts
        for x in anatomy.parts[n].linears
        if x.path in own.layers
    ]
    widths += [(x.weights, s.weights.num_bits) for n in parts for x, s in recipe.parts[n].touched()]
    weights = sum(w for w, _ in widths)
    return sum(w * bits for w, bits in widths) / weights if weights else None


def _role_bits(own: Held, recipe: Recipe, anatomy: Anatomy) -> dict[str, float]:
    by_role = {r: [n for n, p in anatomy.parts.items() if p.role == r] for r in ROLES}
    found = {r: _mean(names, own, recipe, anatomy) for r, names in by_role.items()}
    return {f"bits_{r}": bits for r, bits in found.items() if bits is not None}


def _sizes(own: Held, columns: Mapping[str, object], untouched: Mapping[str, object]) -> dict[str, object]:
    """Of the files, and what the recipe takes from the layers that are not integers in them."""
    params = float(str(untouched["params"]))
    saved = 8 * (int(str(untouched["model_bytes"])) - int(str(columns["model_bytes"])))
    weights = sum(x.out_features * x.in_features for x in own.all)
    more = int(str(columns["params_touched"]))
    touched = sum(x.bits for x in own.all) + more * float(str(columns["bits_per_weight_touched"]))
    total = own.bits - saved
    return {
        "layers_touched": len(own.all) + int(str(columns["layers_touched"])),
        "params_touched": weights + more,
        "bits_per_weight_touched": touched / (weights + more),
        "bits_per_weight": total / params,
        "model_bytes": math.ceil(total / 8),
        "compression_ratio": params * COUNTED / total,
    }


def _one(values: Iterable[object]) -> object:
    distinct = list(dict.fromkeys(v for v in values))
    return distinct[0] if len(distinct) == 1 else (MIXED if distinct else None)
