"""Checkpoints of a library's own tensors, which transformers loads: those of torchao and of bitsandbytes.

Each tensor is compared with the cell's weight before it is written: what would differ in a bit is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from blip2sweep.compression.quantize.codes import Codes
from blip2sweep.compression.quantize.scheme import Weights
from blip2sweep.errors import UserError
from blip2sweep.exporting import Written, readme
from blip2sweep.exporting.layout import Layout, laid_out
from blip2sweep.exporting.layout import write as write_layout
from blip2sweep.exporting.made import Made

Tensors = Mapping[str, Tensor]
BESIDE = (".quant_map", ".weight_format", ".quant_state.")  # what bitsandbytes stores besides numbers


def _layers(made: Made) -> dict[str, Weights]:
    """{path: how it is quantized} of the layers of the recipe."""
    return {path: scheme.weights for path, scheme in made.recipe.schemes.items()}


def _weight(model: nn.Module, path: str) -> Tensor:
    weight = model.get_submodule(path).weight
    assert isinstance(weight, Tensor)
    return weight.detach().cpu()


def _same(path: str, found: Tensor, weight: Tensor) -> None:
    if not torch.equal(found.to(weight.dtype), weight):
        raise UserError(f"{path}: the library's tensor differs from the cell's weight; right: --to compressed-tensors")


# ---- torchao


def write_torchao(made: Made, folder: Path) -> Written:
    """8-bit codes as they are; float8 from the weights."""
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    with laid_out(made, layers=tuple(_layers(made))) as layout:
        own = {f"{path}.weight": _torchao(layout, path) for path in layout.layers}
        tensors, metadata = flatten_tensor_state_dict(own)  # of these alone: it wants a dot in each name
        config = TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=layout.dense_layers()).to_dict()
        payload = write_layout(made, layout, {**layout.dense(), **tensors}, _as_json(config), folder, metadata)
        (folder / "README.md").write_text(readme.of_library(made, "torchao", layout.rounded()))
    return Written(payload, _around(folder, payload))


def _torchao(layout: Layout, path: str) -> Tensor:
    weight, codes = _weight(layout.model, path), layout.codes.get(path)
    made: Tensor = _float8(weight) if codes is None else _int8(codes, weight)
    _same(path, made.dequantize(), weight)
    return made


def _int8(codes: Codes, weight: Tensor) -> Tensor:
    from torchao.quantization import Int8Tensor, IntxUnpackedToInt8Tensor

    values = (codes.values.cpu().int() - 128).to(torch.int8)
    block, scale = [1, codes.group_size or weight.shape[1]], codes.scale.cpu()
    if codes.zero_point is None:
        found: Tensor = Int8Tensor(values, scale, block, weight.dtype)
        return found
    zero = (codes.zero_point.cpu().int() - 128).to(torch.int8)
    found = IntxUnpackedToInt8Tensor(values, scale, zero, torch.int8, tuple(block), weight.dtype, None)
    return found


def _float8(weight: Tensor) -> Tensor:
    """A weight that was rounded to float8 by rows or as a whole: the codes and scales that it was made of."""
    from torchao.quantization.granularity import PerRow, PerTensor
    from torchao.quantization.quantize_.workflows.float8.float8_tensor import Float8Tensor

    found: Tensor | None = None
    for shared in (PerTensor(), PerRow()):
        tensor: Tensor = Float8Tensor.from_hp(weight, torch.float8_e4m3fn, shared)
        found = tensor if torch.equal(tensor.dequantize().to(weight.dtype), weight) else found
    return tensor if found is None else found


# ---- bitsandbytes


def write_bitsandbytes(made: Made, folder: Path) -> Written:
    """What the library makes of the weights again: its codebooks have 1 and -1, so a block's largest weight is its scale."""
    from transformers import BitsAndBytesConfig

    layers = _layers(made)
    method = next(iter(layers.values())).method
    with laid_out(made, layers=tuple(layers)) as layout:
        state = layout.dense()
        for path, original in layout.layers.items():
            weight = _weight(layout.model, path)
            state |= _int8_of(path, weight) if method == "int8" else _codebook(path, weight, layers[original])
        config = BitsAndBytesConfig(
            load_in_8bit=method == "int8", load_in_4bit=method != "int8", bnb_4bit_quant_type="nf4" if method == "int8" else method,
            bnb_4bit_compute_dtype=layout.model.dtype, llm_int8_skip_modules=layout.dense_layers(),
        )  # fmt: skip
        payload = write_layout(made, layout, state, _as_json(config.to_dict()), folder)
        payload -= sum(x.numel() * x.element_size() for name, x in state.items() if any(b in name for b in BESIDE))
        told = readme.of_library(made, "bitsandbytes", layout.rounded(), method == "int8", _widened(layout))
        (folder / "README.md").write_text(told)
    return Written(payload, _around(folder, payload))


def _widened(layout: Layout) -> str | None:
    """The dtype in which the model runs where some numbers are stored in another; transformers' loader for bitsandbytes
    keeps those of the files."""
    dtype = layout.model.dtype
    return str(dtype).removeprefix("torch.") if set(layout.stored.values()) - {dtype} else None


def _codebook(path: str, weight: Tensor, how: Weights) -> Tensors:
    from bitsandbytes import functional

    size = how.group_size or weight.shape[1]
    codes, state = functional.quantize_4bit(weight.contiguous(), blocksize=size, quant_type=how.method)
    _same(path, functional.dequantize_4bit(codes, state).reshape(weight.shape), weight)
    return {f"{path}.weight": codes, **{f"{path}.weight.{k}": v for k, v in state.as_dict(packed=True).items()}}


def _int8_of(path: str, weight: Tensor) -> Tensors:
    from bitsandbytes import functional

    codes, scale, _ = functional.int8_vectorwise_quant(weight.half().contiguous())
    _same(path, functional.int8_vectorwise_dequant(codes, scale), weight)
    kind = torch.tensor(0, dtype=torch.uint8)  # rows
    return {f"{path}.weight": codes, f"{path}.SCB": scale, f"{path}.weight_format": kind}


def _as_json(config: Mapping[str, object]) -> dict[str, object]:
    found: dict[str, object] = json.loads(json.dumps(config, default=str))
    return found


def _around(folder: Path, payload: int) -> int:
    return sum(p.stat().st_size for p in folder.iterdir()) - payload
