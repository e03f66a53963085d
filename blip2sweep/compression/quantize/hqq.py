"""HQQ (Badri and Shaji, mobiusml.github.io/hqq_blog): zero points found by half-quadratic splitting, without data.

Solver and grid are those of the library hqq. Zero points are floats (integers at 4 bits, as in its own layers). Groups
lie along the inputs (axis 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from blip2sweep.compression.quantize.codes import Codes, as_stored
from blip2sweep.compression.quantize.threads import fixed_threads

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Weights


def codes(weight: Tensor, weights: Weights, scale_dtype: torch.dtype = torch.float32) -> Codes:
    """The codes of a weight (out, in) float32. Scales and zero points of 16 bits are rounded, and then the codes are made."""
    from hqq.core.quantize import Quantizer

    device, bits, out = weight.device.type, weights.num_bits, len(weight)
    with fixed_threads(
        1
    ):  # it ends early by a mean over the whole tensor, which another number of threads rounds otherwise
        found, meta = Quantizer.quantize(
            weight, nbits=bits, group_size=weights.group_size, axis=1, optimize=True, bitpack=False,
            round_zero=bits == 4, device=device, compute_dtype=weight.dtype,
        )  # fmt: skip
    scale, zero_point = (as_stored(meta[x].float(), scale_dtype) for x in ("scale", "zero"))
    if scale_dtype.itemsize == 2:
        rows = weight.reshape(len(scale), -1)
        found = (rows / scale + zero_point).round().clamp(0, 2**bits - 1)
    scale, zero_point = scale.reshape(out, -1).clone(), zero_point.reshape(out, -1).clone()
    size = weights.group_size if scale.shape[1] > 1 else None
    return Codes(found.to(torch.uint8).reshape(weight.shape), scale.to(scale_dtype), zero_point, bits, size)
