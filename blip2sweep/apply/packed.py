"""Packed execution: layers are replaced by a library's packed ones. And the bytes that a model takes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from blip2sweep.compression.quantize.kernels import Kernel, kernel_of
from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.compression.sparsity import kernels as sparse_kernels
from blip2sweep.compression.sparsity.spec import Sparse
from blip2sweep.compression.step import QUANTIZE, SPARSITY, Spec
from blip2sweep.compression.undo import Undo
from blip2sweep.errors import UserError
from blip2sweep.models.load import Loaded
from blip2sweep.recipe import Recipe

OUTLIERS = 6.0  # inputs from this size on bitsandbytes int8 multiplies in 16 bits, as published


def split(recipe: Recipe) -> tuple[Recipe, Recipe]:
    """(the recipe that is simulated, the recipe that is packed).

    A sparse layer that is packed is in both: its zeros are put in first.
    """
    kinds = (QUANTIZE, SPARSITY)
    packed = {n: p.only(kinds.__contains__).where(_is_packed) for n, p in recipe.parts.items()}
    rest = {n: p.requantized(lambda _, s: None if s.weights.packed else s) for n, p in recipe.parts.items()}
    return Recipe(rest), Recipe(packed)


def _is_packed(spec: Spec) -> bool:
    return bool(spec.weights.packed if isinstance(spec, Scheme) else isinstance(spec, Sparse) and spec.packed)


@contextmanager
def packed_layers(loaded: Loaded, recipe: Recipe) -> Iterator[None]:
    """In it the recipe's layers are packed modules. Leaving it puts the originals back."""
    pairs = [pair for part in recipe.parts.values() for s in part.steps for pair in s.pairs]
    with Undo() as undo:
        for site, spec in pairs:
            _exchange(loaded, site.path, spec, undo)
        yield


def _exchange(loaded: Loaded, path: str, spec: Spec, undo: Undo) -> None:
    module, device = loaded.model.get_submodule(path), loaded.device.type
    assert isinstance(module, nn.Linear)
    key, planned = ("quant", spec.weights.packed) if isinstance(spec, Scheme) else ("sparsity", sparse_kernels.DEVICE)
    if planned != device:
        raise UserError(f"{key}.packed={planned}: planned for that, and this worker has {device}")
    undo.module(loaded.model, path, pack(module, spec) if isinstance(spec, Scheme) else pack_sparse(module))


@torch.no_grad()
def pack_sparse(module: nn.Linear) -> nn.Module:
    """A copy of a linear layer whose weight torch's 2:4 kernels multiply. The original keeps its weight.

    Raises UserError for a GPU without such kernels.
    """
    capability = torch.cuda.get_device_capability(module.weight.device)
    if capability < sparse_kernels.CAPABILITY:
        needed, found = (".".join(map(str, numbers)) for numbers in (sparse_kernels.CAPABILITY, capability))
        raise UserError(
            f"sparsity.packed=cuda: needs a GPU of compute capability {needed} or more, and this one has {found}"
        )
    own = copy.copy(module)
    packed = torch.sparse.to_sparse_semi_structured(module.weight.data.contiguous())
    own._parameters = {**module._parameters, "weight": nn.Parameter(packed, requires_grad=False)}
    return own


@torch.no_grad()
def pack(module: nn.Linear, scheme: Scheme) -> nn.Module:
    """A packed copy of a linear layer. The original keeps its weight."""
    kernel = kernel_of(scheme)
    return _torchao(module, scheme, kernel) if kernel.library == "torchao" else _bitsandbytes(module, scheme)


def _torchao(module: nn.Linear, scheme: Scheme, kernel: Kernel) -> nn.Module:
    from torchao import quantization

    config: Any
    # Else torchao sets up torch's compiler, which is not used, and older releases let all float32 products of the process
    # run in TF32.
    eager: dict[str, Any] = {"set_inductor_config": False}
    if kernel.method == "float8":
        config = quantization.Float8WeightOnlyConfig(**eager)
    elif kernel.bits == 4:
        config = quantization.Int4WeightOnlyConfig(
            group_size=scheme.weights.group_size or module.in_features, int4_packing_format="tile_packed_to_4d", **eager
        )
    elif kernel.w8a8:
        config = quantization.Int8DynamicActivationInt8WeightConfig(**eager)
    else:
        config = quantization.Int8WeightOnlyConfig(**eager)
    own = copy.copy(module)
    own._parameters = dict(module._parameters)
    quantization.quantize_(nn.Sequential(own), config)
    if type(own.weight) in (Tensor, nn.Parameter):  # torchao leaves alone what it cannot quantize, and only logs that
        raise RuntimeError(f"torchao left a weight {tuple(module.weight.shape)} unquantized under {config}")
    return own


def _bitsandbytes(module: nn.Linear, scheme: Scheme) -> nn.Module:
    import bitsandbytes

    w, bias = scheme.weights, module.bias
    shape = (module.in_features, module.out_features, bias is not None)
    own: Any
    if w.method == "int8":
        own = bitsandbytes.nn.Linear8bitLt(
            *shape, has_fp16_weights=False, threshold=OUTLIERS
        ).eval()  # otherwise a CPU uses floats
        own.weight = bitsandbytes.nn.Int8Params(module.weight.data.clone(), requires_grad=False, has_fp16_weights=False)
    else:
        own = bitsandbytes.nn.Linear4bit(*shape, compute_dtype=module.weight.dtype, quant_type=w.method)
        size = w.group_size or module.in_features
        own.weight = bitsandbytes.nn.Params4bit(
            module.weight.data.clone(), requires_grad=False, quant_type=w.method, blocksize=size,
            compress_statistics=False, module=own,
        )  # fmt: skip
    own.bias = bias
    return own.to(module.weight.device)


# ---- bytes


def model_bytes(model: nn.Module) -> int:
    """The bytes of all parameters and buffers as they are stored. A storage that several share counts once."""
    sizes: dict[int, int] = {}
    for tensor in _stored(model):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(sizes.values())


def _stored(model: nn.Module) -> Iterator[Tensor]:
    for tensor in (*model.parameters(), *model.buffers()):
        yield from _inner(tensor)
    for module in model.modules():
        yield from _scales(module)


def _scales(module: nn.Module) -> Iterator[Tensor]:
    """The scales of an int8 layer of bitsandbytes, which it keeps in its state once it has run."""
    scales = getattr(getattr(module, "state", None), "SCB", None)
    if scales is not None:
        yield scales


def _inner(tensor: Any) -> Iterator[Tensor]:
    """The plain tensors of a packed tensor."""
    if tensor is None:
        return
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _inner(getattr(tensor, name))
        return
    yield tensor.data
    state = getattr(tensor, "quant_state", None)
    if state is not None:
        yield state.absmax
    if getattr(tensor, "SCB", None) is not None:
        yield tensor.SCB
