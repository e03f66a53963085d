"""SmoothQuant (Xiao et al., arXiv:2211.10438): input outliers move into the weights, X W = (X / s) (s W).

s = max|x|^alpha / max|w|^(1 - alpha) for each input. It helps where inputs are quantized too (`quant.input.bits`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from blip2sweep.compression.quantize import rtn
from blip2sweep.compression.quantize.codes import as_stored
from blip2sweep.compression.quantize.statistics import Result, Statistics, relative_error

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Weights

SMALLEST = 1e-5


def smoothing(largest_input: Tensor, weight: Tensor, alpha: float) -> Tensor:
    """s (in). largest (in): the largest absolute value of each input. weight (out, in)."""
    x, w = largest_input.clamp(min=SMALLEST), weight.abs().amax(0).clamp(min=SMALLEST)
    return (x.pow(alpha) / w.pow(1 - alpha)).clamp(min=SMALLEST)


def calibrated(weight: Tensor, weights: Weights, statistics: Statistics) -> Result:
    """The codes of W s for a weight W (out, in) float32, and the prescale s for the input's quantizer."""
    assert weights.alpha is not None
    dtype = statistics.scale_dtype
    s = as_stored(smoothing(statistics.largest, weight, weights.alpha), dtype)
    result = Result.of(replace(rtn.codes(weight * s, weights, dtype), prescale=s), s)
    if statistics.hessian is not None:
        result.info["error"] = relative_error(result.weight, weight, statistics.hessian)
    return result
