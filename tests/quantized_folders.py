"""Writers of checkpoints that are quantized already: GPTQ as AutoGPTQ writes it, AWQ as AutoAWQ's gemm, compressed-tensors.

They pack word by word in loops, as those programs do, and share no code with the package's unpacker.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.checkpoints import TINY, edit

LLM = "language_model.model.decoder.layers."
Tensors = dict[str, Tensor]
Layer = Callable[
    [Tensor], tuple[Tensors, Tensor]
]  # weight (out, in) -> (its tensors by the ends of names, what they mean)
SCALES = torch.bfloat16
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def grid(weight: Tensor, bits: int, size: int, symmetric: bool, least: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(codes (out, in) of 0 … 2^bits - 1, scales and zero points (out, groups)) of rounding to the nearest."""
    grouped = weight.float().unflatten(1, (-1, size))
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    top = 2**bits - 1
    scale = torch.maximum(high, -low) * 2 / top if symmetric else (high - low) / top
    scale = scale.to(SCALES)
    zero = torch.full_like(scale, 2 ** (bits - 1)) if symmetric else (-low / scale.float()).round()
    zero = zero.float().clamp(least, top)
    codes = ((grouped / scale.float()[..., None]).round() + zero[..., None]).clamp(0, top)
    return codes.flatten(1).int(), scale, zero.int()


def signed(word: int) -> int:
    """A word of 32 bits as int32 has it."""
    return word - 2**32 if word >= 2**31 else word


def stream(codes: list[int], bits: int) -> list[int]:
    """int32 words of codes, one after the other, the lowest bits first: as AutoGPTQ packs columns, also of 3 bits."""
    whole = sum((code & (2**bits - 1)) << (i * bits) for i, code in enumerate(codes))
    return [signed(whole >> (32 * i) & 0xFFFFFFFF) for i in range(-(-len(codes) * bits // 32))]


def packed(rows: Tensor, bits: int) -> Tensor:
    return torch.tensor([stream(row, bits) for row in rows.tolist()], dtype=torch.int32)


def gptq(bits: int = 4, size: int = 16, symmetric: bool = True, v2: bool = False, act_order: bool = False) -> Layer:
    def one(weight: Tensor) -> tuple[Tensors, Tensor]:
        inputs = weight.shape[1]
        order = torch.randperm(inputs, generator=torch.manual_seed(0)) if act_order else torch.arange(inputs)
        codes, scale, zero = grid(weight[:, order], bits, size, symmetric, least=0 if v2 else 1)
        group = torch.empty(inputs, dtype=torch.int32)
        group[order] = (torch.arange(inputs) // size).int()
        back = order.argsort()
        codes = codes[:, back]
        means = (codes - zero[:, group.long()]) * scale.float()[:, group.long()]
        stored = zero if v2 else zero - 1  # format gptq stores them less 1
        tensors = {
            "qweight": packed(codes, bits).T,
            "qzeros": packed(stored.T, bits),
            "scales": scale.T,
            "g_idx": group,
        }
        return tensors, means

    return one


def awq(size: int = 16) -> Layer:
    def words(rows: Tensor) -> Tensor:  # (n, out) -> (n, out / 8)
        found = torch.zeros(len(rows), rows.shape[1] // 8, dtype=torch.int64)
        for column in range(rows.shape[1] // 8):
            for i, at in enumerate(AWQ_ORDER):
                found[:, column] |= rows[:, column * 8 + at].long() << (i * 4)
        return torch.where(found >= 2**31, found - 2**32, found).int()

    def one(weight: Tensor) -> tuple[Tensors, Tensor]:
        codes, scale, zero = grid(weight, 4, size, symmetric=False)
        means = (codes - zero.repeat_interleave(size, 1)) * scale.float().repeat_interleave(size, 1)
        return {"qweight": words(codes.T), "qzeros": words(zero.T), "scales": scale.T}, means

    return one


def compressed(bits: int = 4, size: int | None = 16, symmetric: bool = True, int8: bool = False) -> Layer:
    """Packed by compressed-tensors itself."""

    def one(weight: Tensor) -> tuple[Tensors, Tensor]:
        from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

        half, n = 2 ** (bits - 1), size or weight.shape[1]
        codes, scale, zero = grid(weight, bits, n, symmetric)
        means = (codes - zero.repeat_interleave(n, 1)) * scale.float().repeat_interleave(n, 1)
        low, zeros = (codes - half).to(torch.int8), (zero - half).to(torch.int8)
        if int8:
            own = {"weight": low} if symmetric else {"weight": low, "weight_zero_point": zeros}
            return {**own, "weight_scale": scale}, means
        own = {} if symmetric else {"weight_zero_point": pack_to_int32(zeros, bits, packed_dim=0)}
        shape = torch.tensor(weight.shape)
        return {"weight_packed": pack_to_int32(low, bits), "weight_scale": scale, "weight_shape": shape, **own}, means

    return one


def gptq_config(bits: int = 4, size: int = 16, **more: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": bits, "group_size": size, "sym": True, "desc_act": False, **more}


def awq_config(size: int = 16, **more: Any) -> dict[str, Any]:
    return {"quant_method": "awq", "bits": 4, "group_size": size, "zero_point": True, "version": "gemm", **more}


def compressed_config(
    bits: int = 4, size: int | None = 16, symmetric: bool = True, form: str = "pack-quantized", **more: Any
) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group" if size else "channel",
               "group_size": size, **more}  # fmt: skip
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": groups, "ignore": ["lm_head"]}


def write(folder: Path, layer: Layer, config: Mapping[str, Any], words: str = LLM) -> dict[str, Tensor]:
    """A copy of the tiny model whose linear layers below `words` are quantized. Returns what their weights mean."""
    shutil.copytree(TINY, folder)
    tensors = load_file(folder / "model.safetensors")
    meant = {}
    for name in [n for n, t in tensors.items() if words in n and n.endswith(".weight") and t.ndim == 2]:
        module = name.removesuffix(".weight")
        own, meant[module] = layer(tensors.pop(name))
        tensors |= {f"{module}.{end}": x.contiguous() for end, x in own.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    edit(folder / "config.json", quantization_config=dict(config))
    return meant
