"""The weights that a checkpoint's integers mean. The forms of the files are in blip2sweep/models/checkpoints/packed.py.

Numbers are computed in float32, where `(code - zero point) * scale` of a 16-bit scale is exact, and rounded once to the
dtype of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import torch
from safetensors import safe_open
from torch import Tensor

from blip2sweep.errors import UserError
from blip2sweep.models.checkpoints import Weights, shown
from blip2sweep.models.checkpoints.packed import WORD, Packed
from blip2sweep.models.checkpoints.quantized import AWQ, GPTQ

Read = Callable[[str], Tensor]
NIBBLES = (0, 2, 4, 6, 1, 3, 5, 7)  # the column of each nibble of a word of AutoAWQ's gemm format
ROWS = 1024  # that are unpacked at once


def state_dict(weights: Weights, dtype: torch.dtype) -> dict[str, Tensor]:
    """All tensors of a checkpoint, its integers as the weights that they mean, in a dtype.

    Raises UserError, one line, where a group's number is none.
    """
    inside = {f"{name}.{end}" for name, x in weights.packed.items() for end in x.tensors}
    found: dict[str, Tensor] = {}
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(h.path, framework="pt")) for h in weights.headers]
        holder = {name: f for f, h in zip(files, weights.headers, strict=True) for name in h.tensors}
        for name in holder.keys() - inside:
            tensor = holder[name].get_tensor(name)
            found[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, x in weights.packed.items():
            own = {end: holder[f"{name}.{end}"].get_tensor(f"{name}.{end}") for end in x.tensors}
            found[f"{name}.weight"] = weight(x, own).to(dtype)
    return found


def weight(x: Packed, own: Mapping[str, Tensor]) -> Tensor:
    """The weight (out, in) float32 of a layer. own: {end of a name: tensor} of its integers and scales.

    Raises UserError where a number of a group is none, or groups have more columns than they can.
    """
    codes, scale, zero = _UNPACK.get(x.quantized.method, _compressed)(x, own)
    indices = own.get("g_idx", own.get("weight_g_idx"))
    group = _groups(x, indices)
    spread = (lambda t: t) if scale.shape[1] == 1 else (lambda t: t[:, group])
    return (codes.float() - spread(zero.float())) * spread(scale.float())


def mistakes(weights: Weights) -> list[str]:
    """The layers whose columns are not in groups as they should be. Only the numbers of groups are read."""
    found = []
    for name, x in weights.packed.items():
        for end in {"g_idx", "weight_g_idx"} & x.tensors.keys():
            header = next(h for h in weights.headers if f"{name}.{end}" in h.tensors)
            with safe_open(header.path, framework="pt") as file:
                try:
                    _groups(x, file.get_tensor(f"{name}.{end}"))
                except UserError as error:
                    found.append(str(error))
    return found


Parts = tuple[Tensor, Tensor, Tensor]  # codes (out, in), scales and zero points (out, groups) or (1, 1)


def _gptq(x: Packed, own: Mapping[str, Tensor]) -> Parts:
    bits, less = x.scheme.bits, int(x.quantized.format == GPTQ)
    codes = _codes(own["qweight"].T, bits, x.in_features)
    # What is stored of a zero point of 0 is the largest code: 1 more than that is 0 again.
    zero = (_codes(own["qzeros"], bits, x.out_features).short() + less) & (2**bits - 1)
    return codes, own["scales"].T, zero.T


def _awq(x: Packed, own: Mapping[str, Tensor]) -> Parts:
    def columns(words: Tensor) -> Tensor:
        found = _codes(words, x.scheme.bits, x.out_features).unflatten(1, (-1, len(NIBBLES)))
        return found[..., torch.tensor(NIBBLES).argsort()].flatten(1).T

    return columns(own["qweight"]), own["scales"].T, columns(own["qzeros"])


def _compressed(x: Packed, own: Mapping[str, Tensor]) -> Parts:
    scale, zero, half = own["weight_scale"], own.get("weight_zero_point"), 2 ** (x.scheme.bits - 1)
    scale = scale.reshape(1, 1) if x.scheme.strategy == "tensor" else scale
    packed = own.get("weight_packed")
    codes = own["weight"].short() + half if packed is None else _codes(packed, x.scheme.bits, x.in_features)
    if x.scheme.symmetric or zero is None:
        return codes, scale, torch.full_like(scale, half, dtype=torch.int16)
    if zero.dtype == torch.int32:
        return codes, scale, _codes(zero.T, x.scheme.bits, x.out_features).T
    return codes, scale, zero.reshape(scale.shape).short() + half


_UNPACK: Mapping[str, Callable[[Packed, Mapping[str, Tensor]], Parts]] = {GPTQ: _gptq, AWQ: _awq}


def _codes(packed: Tensor, bits: int, n: int) -> Tensor:
    """(rows, n) uint8 of (rows, words) int32: codes without gaps, the lowest bits first."""
    return torch.cat(list(_pieces(packed, bits, n))) if len(packed) else packed.new_zeros((0, n), dtype=torch.uint8)


def _pieces(packed: Tensor, bits: int, n: int) -> Iterator[Tensor]:
    at = torch.arange(n) * bits
    word, shift = at // WORD, at % WORD
    after = (word + 1).clamp(max=packed.shape[1] - 1)
    for rows in packed.split(ROWS):
        if WORD % bits == 0:  # no code ends in another word, which is several times as fast
            shifts = torch.arange(0, WORD, bits, dtype=torch.int32)
            yield ((rows[..., None] >> shifts) & (2**bits - 1)).to(torch.uint8).flatten(1)[:, :n]
            continue
        whole = rows.long() & (2**WORD - 1)
        # A code that ends in the next word has its high bits there; of others they are above the mask.
        found = (whole[:, word] >> shift) | (whole[:, after] << (WORD - shift))
        yield (found & (2**bits - 1)).to(torch.uint8)


def _groups(x: Packed, indices: Tensor | None) -> Tensor:
    """(in) the number of each column's group. Raises UserError for a number that is none of them."""
    size = x.scheme.group_size or x.in_features
    plain = torch.arange(x.in_features) // size
    if indices is None or x.groups == 1 or bool((indices == -1).all()):  # -1: compressed-tensors' word for no order
        return plain
    counts = torch.bincount(indices.long().clamp(min=0, max=x.groups), minlength=x.groups)
    if int(indices.min()) < 0 or not torch.equal(counts, torch.bincount(plain)):
        raise UserError(f"{shown(x.name)}: g_idx does not give each of {x.groups} groups its {size} columns")
    return indices.long()
