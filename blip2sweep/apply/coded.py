"""A recipe in a model that is handed out: with the codes of its layers, and with AWQ's scales where no kernel has to
divide by them.

In a cell a layer that AWQ scaled has the weight Q(W s) / s. Here it has Q(W s), the module before it puts out 1/s of what
it did, and other layers that read this have columns that are s times as large: the folded model of the paper. It computes
the same, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from blip2sweep.apply.patch import Made, Patch
from blip2sweep.compression.quantize.codes import Codes, as_stored, dequantize
from blip2sweep.compression.quantize.folds import folds, folds_of
from blip2sweep.compression.quantize.layer import scale_dtype, telling_codes
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.step import QUANTIZE
from blip2sweep.compression.undo import Undo
from blip2sweep.models.part import Fold, Part
from blip2sweep.recipe import PartRecipe, Recipe

Folds = dict[str, Tensor]


class Folded(NamedTuple):
    """A scale s (in) and where it goes. before: the path of the module that absorbs it. rows: which of its outputs.

    members: paths of the layers that were quantized with it. others: of those that read the same and were not.
    """

    s: Tensor
    before: str
    rows: slice
    members: list[str]
    others: list[str]


def coded(
    patch: Patch, recipe: Recipe, prepared: Mapping[str, Prepared], made: Made | None = None
) -> tuple[dict[str, Codes], Folds]:
    """Put a recipe into a model, as `Patch.apply` does, until the next recipe. Nothing that is remembered is used.

    Returns {path: codes} of the layers whose weights are those of their codes, and {path: what its outputs were divided
    by} of the modules that absorb a scale. Where something is trained after quantization nothing is folded.
    """
    plain = not recipe.kinds or recipe.kinds[-1] == QUANTIZE == recipe.kinds[len(recipe.before.kinds)]
    found = list(_folded(recipe, prepared)) if plain else []
    ready = dict(prepared)
    for path in (p for f in found for p in f.members):
        codes = ready[path].codes
        ready[path] = replace(ready[path], codes=codes.unscaled if codes else None, prescale=None)
    memo, patch.memo = patch.memo, None
    try:
        patch.restore()
        with telling_codes() as told:
            patch.apply(recipe, ready, made)
        return _with_scales(patch, told, found)
    except BaseException:
        patch.restore()
        raise
    finally:
        patch.memo = memo


@torch.no_grad()
def _with_scales(patch: Patch, told: dict[str, Codes], found: list[Folded]) -> tuple[dict[str, Codes], Folds]:
    model, divided = patch.loaded.model, Folds()
    for f in found:
        before = model.get_submodule(f.before)
        _divide(before, f, told, patch.over)
        for path in f.others:
            reader = model.get_submodule(path)
            weight = reader.get_parameter("weight")
            patch.over.data(weight, as_stored(weight.float() * f.s, scale_dtype(reader)).to(weight.dtype))
        outputs = divided.setdefault(f.before, torch.ones(_outputs(before), device=f.s.device))
        outputs[f.rows] *= f.s
    return {path: c for path, c in told.items() if _is_of(model.get_submodule(path), c)}, divided


def _is_of(module: nn.Module, codes: Codes) -> bool:
    """Whether no later step changed what the codes made of a layer."""
    weight = module.get_parameter("weight") if isinstance(module, nn.Linear) else None
    return weight is not None and torch.equal(weight, dequantize(codes).to(weight.device, weight.dtype))


# ---- which scales, and where they go


def _folded(recipe: Recipe, prepared: Mapping[str, Prepared]) -> Iterator[Folded]:
    for part in recipe.parts.values():
        for block in sorted({x.block for x, s in part.touched() if folds(s)}):
            yield from _of_block(part, block, prepared)


def _of_block(recipe: PartRecipe, block: int, prepared: Mapping[str, Prepared]) -> Iterator[Folded]:
    schemes = {x.path: s for x, s in recipe.touched() if x.block == block}
    own = {path for path, s in schemes.items() if folds(s)}
    inside = {x.name: x.path for x in recipe.part.linears if x.block == block}
    for fold, members in folds_of(recipe.part, block, schemes, own):
        s = _common([prepared[p].codes for p in members])
        if s is not None:
            others = [inside[n] for n in fold.into if n in inside and inside[n] not in schemes]
            yield Folded(s, _before(recipe.part, block, fold), _rows(fold, len(s)), members, others)


def _common(codes: list[Codes | None]) -> Tensor | None:
    """The scale that all have. None where there is none, or where another fold scaled one of them."""
    scales = [None if c is None else c.prescale for c in codes]
    first = scales[0]
    return first if first is not None and all(s is not None and torch.equal(s, first) for s in scales) else None


def _before(part: Part, block: int, fold: Fold) -> str:
    stack = next(s for s in part.stacks if s.first <= block < s.first + s.n)
    return f"{stack.block_path(block)}.{fold.before}"


def _rows(fold: Fold, size: int) -> slice:
    i, n = fold.piece
    return slice(i * size, (i + 1) * size) if n > 1 else slice(None)


# ---- dividing what a module puts out


def _outputs(module: nn.Module) -> int:
    return len(module.get_parameter("weight"))


def _divide(module: nn.Module, f: Folded, told: dict[str, Codes], undo: Undo) -> None:
    """Divide what a norm or linear layer puts out by s. A quantized layer keeps its codes: its scales are divided."""
    if not isinstance(module, nn.Linear):
        _divide_norm(module, f, undo)
        return
    if f.before in told:
        told[f.before] = _with_rows(told[f.before], f)
        undo.data(module.weight, dequantize(told[f.before]).to(module.weight.device, module.weight.dtype))
    else:
        undo.data(module.weight, _divided(module.weight, f, scale_dtype(module)))
    if module.bias is not None:
        undo.data(module.bias, _divided(module.bias, f, scale_dtype(module)))


def _with_rows(codes: Codes, f: Folded) -> Codes:
    scale = codes.scale.float().clone()
    scale[f.rows] /= f.s.to(scale.device)[:, None]
    return replace(codes, scale=as_stored(scale, codes.scale.dtype).to(codes.scale.dtype))


def _divided(x: Tensor, f: Folded, stored: torch.dtype, offset: float = 0.0) -> Tensor:
    """A weight (out, …) or bias (out). stored: its dtype where it is written. offset: what the module adds to it."""
    new, s = x.detach().float() + offset, f.s.to(x.device)
    new[f.rows] = new[f.rows] / s.reshape(-1, *[1] * (x.dim() - 1))
    return as_stored(new - offset, stored).to(x.dtype)


def _divide_norm(module: nn.Module, f: Folded, undo: Undo) -> None:
    """Some norms multiply by 1 + weight: which kind it is, is tried.

    Raises RuntimeError for a module that is neither.
    """
    weight, bias, stored = module.get_parameter("weight"), getattr(module, "bias", None), scale_dtype(module)
    x = torch.randn(8, len(weight), generator=torch.Generator().manual_seed(0)).to(weight.device, weight.dtype)
    expected, original = _divided(module(x).float().T, f, torch.float32).T, weight.data
    if isinstance(bias, Tensor):
        undo.data(bias, _divided(bias, f, stored))
    for offset in (0.0, 1.0):
        weight.data = original
        undo.data(weight, _divided(weight, f, stored, offset))
        error = (module(x).float() - expected).norm() / expected.norm()
        if error < 16 * torch.finfo(stored).eps:
            return
    raise RuntimeError(f"{f.before}: no norm whose weight can be divided by a scale")
