"""HQQ (Badri and Shaji, mobiusml.github.io/hqq_blog): zero points found by half-quadratic splitting, without data.

Solver and grid are those of the library hqq. Zero points are floats (integers at 4 bits, as in its own layers). Groups
lie along the inputs (axis 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blip2sweep.compression.quantize.threads import fixed_threads

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Weights


def apply(weight: Tensor, bias: Tensor | None, weights: Weights) -> tuple[Tensor, Tensor | None]:
    """weight (out, in) float32 -> dequantized weight of the same shape. The bias is unchanged."""
    from hqq.core.quantize import Quantizer

    device: str = weight.device.type
    with fixed_threads(
        1
    ):  # it ends early by a mean over the whole tensor, which another number of threads rounds otherwise
        codes, meta = Quantizer.quantize(
            weight, nbits=weights.num_bits, group_size=weights.group_size, axis=1, optimize=True, bitpack=False,
            round_zero=weights.num_bits == 4, device=device, compute_dtype=weight.dtype,
        )  # fmt: skip
        return Quantizer.dequantize(codes, meta).reshape(weight.shape).to(weight.dtype), bias
