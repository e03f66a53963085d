"""Codes as the tensors that operators of ONNX read."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

UNSIGNED = {2: ir.DataType.UINT2, 4: ir.DataType.UINT4, 8: ir.DataType.UINT8}
SIGNED = {2: ir.DataType.INT2, 4: ir.DataType.INT4, 8: ir.DataType.INT8}
FLOATS = {torch.float32: ir.DataType.FLOAT, torch.float16: ir.DataType.FLOAT16, torch.bfloat16: ir.DataType.BFLOAT16}


def packed(values: Tensor, bits: int) -> Tensor:
    """(…, n) uint8 codes -> (…, ceil(n bits / 8)) uint8. The first code is in the lowest bits of a byte."""
    per = 8 // bits
    filled = torch.nn.functional.pad(values, (0, -values.shape[-1] % per))
    split = filled.unflatten(-1, (-1, per))
    return sum((split[..., i] << (bits * i) for i in range(1, per)), split[..., 0])


def codes_tensor(values: Tensor, bits: int, zero: bool) -> ir.TensorProtocol:
    """Codes as a tensor of ONNX's type of so many bits, packed over all its axes.

    zero: whether a zero point stands beside them. Without one they are signed, so that 2^(bits - 1) becomes 0.
    """
    own = values if zero else values ^ (1 << (bits - 1))  # the other half of the range, in two's complement
    dtype = (UNSIGNED if zero else SIGNED)[bits]
    flat = packed(own.flatten(), bits).numpy()
    if bits == 8:
        return ir.Tensor(flat.view(dtype.numpy()).reshape(values.shape), dtype=dtype)
    return ir.PackedTensor(flat, dtype, shape=ir.Shape(values.shape))


def bytes_tensor(values: Tensor) -> ir.TensorProtocol:
    """uint8 as they are."""
    return ir.Tensor(values.contiguous().numpy())


def float_tensor(values: Tensor) -> ir.TensorProtocol:
    """Numbers in their dtype."""
    own = values.detach().contiguous()
    if own.dtype == torch.bfloat16:  # numpy has no such dtype of its own
        return ir.Tensor(own.view(torch.uint16).numpy().view(ml_dtypes.bfloat16), dtype=ir.DataType.BFLOAT16)
    return ir.Tensor(np.asarray(own.numpy()))
