"""Which operator of ONNX holds the codes of a layer. No torch here: planning asks it what a recipe cannot be written as.

`MatMulNBits` of onnxruntime has kernels that read the codes; its blocks are powers of two that divide the row.
`DequantizeLinear` before a MatMul has every other shape. There is no type for 1, 3, 5, 6 or 7 bits.
"""

from __future__ import annotations

from typing import Literal

from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.quantize.scheme import Weights

Operator = Literal["MatMulNBits", "DequantizeLinear"]
WIDTHS = (2, 4, 8)
SMALLEST_BLOCK = 16  # of MatMulNBits
FLOAT_ZERO_WIDTHS = (2, 4)  # for which MatMulNBits takes a zero point that is no integer


def float_zero(weights: Weights) -> bool:
    """Whether a method's zero points are no integers."""
    return METHODS[weights.method].number_zero


def operator_of(bits: int, row: int, group_size: int | None, number_zero: bool, whole: bool = False) -> Operator | None:
    """The operator for rows of so many numbers; None where none holds them.

    group_size: None for one scale a row, or, with `whole`, one for all rows. number_zero: whether zero points are no
    integers.
    """
    if bits not in WIDTHS:
        return None
    block = group_size or row
    in_blocks = not whole and block >= SMALLEST_BLOCK and block & (block - 1) == 0 and row % block == 0
    if number_zero:
        return "MatMulNBits" if in_blocks and bits in FLOAT_ZERO_WIDTHS else None
    return "MatMulNBits" if in_blocks else "DequantizeLinear"


def mistake(weights: Weights, row: int) -> str | None:
    """Why no operator holds a layer with rows of so many numbers; None where one does."""
    if weights.num_bits not in WIDTHS:
        return f"{weights.num_bits} bits have no type in ONNX; right: 2, 4 or 8"
    if (
        operator_of(weights.num_bits, row, weights.group_size, float_zero(weights), weights.strategy == "tensor")
        is None
    ):
        size = f"groups of {weights.group_size}" if weights.group_size else "channels"
        return (
            f"{weights.method} with {weights.num_bits} bits in {size} has zero points that are no integers; right: 2 or 4 bits "
            "in groups of 16, 32, 64, 128 … that divide the row"
        )
    return None
