"""GPTQ (Frantar et al., arXiv:2210.17323): columns are rounded in order, and later columns take up the error of each.

It minimises |W X - Q X|² for the X of the Hessian H = X Xᵀ. With U the upper Cholesky factor of H⁻¹, the error of
column j is divided by U_jj and subtracted from the later columns along row j of U.

The zeros of a sparse layer take up no error, as in llmcompressor: they are zero afterwards too.

The float32 operations are in llmcompressor's order (0.14.0). So on a CPU the values are its own to the last bit. That
matters because a column that rounds differently changes all later ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from blip2sweep.compression.quantize import rtn
from blip2sweep.compression.quantize.codes import Codes, numbers
from blip2sweep.compression.quantize.statistics import Result, Statistics, relative_error

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.quantize.scheme import Weights

LARGEST_DAMP = 10.0


class Factor(NamedTuple):
    """The factor U (in, in), upper, with UᵀU = (H + damping)⁻¹, the damping, and the number of dead inputs."""

    upper: Tensor
    damp: float
    dead: int


def inverse_factor(hessian: Tensor, damp: float) -> Factor:
    """The factor of a Hessian.

    Its damping is a share of the mean diagonal, raised tenfold until the factorization succeeds.

    A dead input, which is always zero, gets a diagonal of its own, so its column is rounded to nearest. GPTQ's own code
    sets that column to zero. That would be wrong for an input that is only zero on the calibration samples.
    """
    h = hessian.clone()
    diagonal = h.diagonal()
    dead = diagonal <= 0
    mean = torch.diag(h).mean().clamp(min=1e-30)  # a tensor of a copy, as in llmcompressor's float32
    diagonal[dead] = mean
    while True:
        diagonal += damp * mean
        upper = _factor(h)
        if upper is not None:
            return Factor(upper, damp, int(dead.sum()))
        if damp >= LARGEST_DAMP:
            raise FloatingPointError("the Hessian cannot be factored, whatever the damping")
        diagonal -= damp * mean
        damp = max(10 * damp, 1e-4)


def _factor(h: Tensor) -> Tensor | None:
    lower, failed = torch.linalg.cholesky_ex(h)
    if failed:
        return None
    upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    return None if failed or not torch.isfinite(upper).all() else upper


class _Grid:
    """Scales and zero points of each group of columns.

    They are set once from the original weights, or when a group is reached.
    """

    def __init__(self, weight: Tensor, weights: Weights, scale_dtype: torch.dtype = torch.float32) -> None:
        self.scale_dtype = scale_dtype
        self.bits, self.symmetric = weights.num_bits, bool(weights.symmetric)
        self.codes = rtn.code_range(self.bits, symmetric=True)  # always signed, as in compressed-tensors
        out, inn = weight.shape
        self.size = weights.group_size or inn
        self.whole = weights.strategy == "tensor"
        groups = -(-inn // self.size)
        self.scale, self.zero_point = weight.new_ones(out, groups), weight.new_zeros(out, groups)
        self.group = torch.arange(inn) // self.size
        for i in range(groups):
            self.set(i, weight[:, i * self.size : (i + 1) * self.size])

    def set(self, group: int, columns: Tensor) -> None:
        """Set the grid of a group from its columns (out, n)."""
        rows = columns.reshape(1, -1) if self.whole else columns
        low, high = rows.amin(-1).clamp(max=0), rows.amax(-1).clamp(min=0)
        scale, _ = rtn.grid(low, high, self.bits, self.symmetric, self.scale_dtype)
        self.scale[:, group] = scale
        if not self.symmetric:
            self.zero_point[:, group] = (self.codes[0] - low / scale).clamp(*self.codes).round()

    def encoded(self, column: Tensor, group: int) -> Tensor:
        """The signed codes of a column (out): divided, shifted, then rounded, as compressed-tensors does.

        `rtn.encode` multiplies by 1/scale and shifts last, which is torchao's order. The two differ at ties, and the
        largest weight of a symmetric row is a tie: it lies at ±(2^b - 1)/2 scales.
        """
        scale, zero_point = self.scale[:, group], self.zero_point[:, group]
        return (column / scale + zero_point).clamp(*self.codes).round()

    def rounded(self, codes: Tensor, group: int) -> Tensor:
        """The numbers of a column's codes."""
        return numbers(codes, self.scale[:, group], self.zero_point[:, group])

    def of(self, signed: Tensor) -> Codes:
        """The codes of a whole weight, as they are stored. signed (out, in)."""
        rows = slice(0, 1) if self.whole else slice(None)
        zero_point = None if self.symmetric else (self.zero_point - self.codes[0])[rows]
        size = self.size if self.scale.shape[1] > 1 else None
        values, scale = (signed - self.codes[0]).to(torch.uint8), self.scale[rows].to(self.scale_dtype)
        return Codes(values, scale, zero_point, self.bits, size)


def quantize(
    weight: Tensor,
    upper: Tensor,
    weights: Weights,
    order: Tensor | None = None,
    kept: Tensor | None = None,
    scale_dtype: torch.dtype = torch.float32,
) -> Codes:
    """The codes of a weight (out, in) float32. upper (in, in): the factor of the Hessian, in `order`.

    order: of the columns; None leaves them as they are. kept (out, in) bool: the weights that may differ from zero;
    None: all.
    """
    grid = _Grid(weight, weights, scale_dtype)
    order = torch.arange(weight.shape[1]) if order is None else order.cpu()
    w, result = weight[:, order.to(weight.device)], torch.empty_like(weight)
    there = None if kept is None else kept[:, order.to(weight.device)]
    groups = grid.group[order].tolist()
    block = _block_size(weights)
    for start in range(0, w.shape[1], block):
        stop = min(start + block, w.shape[1])
        errors = torch.zeros_like(w[:, start:stop])
        for j in range(start, stop):
            if not weights.static_groups and j % grid.size == 0:
                grid.set(groups[j], w[:, j : j + grid.size])
            codes = grid.encoded(w[:, j], groups[j])
            error = (w[:, j] - grid.rounded(codes, groups[j])) / upper[j, j]
            # at once inside the block, and after it for the rest
            w[:, j:stop] -= _taken_up(error[:, None] * upper[j, j:stop], there, j, stop)
            result[:, j], errors[:, j - start] = codes, error
        w[:, stop:] -= _taken_up(errors @ upper[start:stop, stop:], there, stop, None)
    back = torch.argsort(order).to(weight.device)
    return grid.of(result[:, back])


def _taken_up(error: Tensor, kept: Tensor | None, start: int, stop: int | None) -> Tensor:
    """The error that columns start:stop take up."""
    return error if kept is None else error * kept[:, start:stop]


def _block_size(weights: Weights) -> int:
    """The columns of a block: whole groups, where a group's grid must see the errors of all columns before it."""
    block, group = weights.block_size or 128, weights.group_size or 1
    return block if weights.static_groups else -(-block // group) * group


def calibrated(weight: Tensor, weights: Weights, statistics: Statistics, kept: Tensor | None = None) -> Result:
    """The codes of a weight (out, in) float32. info: damping, dead inputs and relative output error.

    kept (out, in) bool: the weights of a sparse layer that may differ from zero.
    """
    assert statistics.hessian is not None
    assert weights.damp is not None
    hessian, order = statistics.hessian, None
    if weights.act_order:
        order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
        hessian = hessian[order][:, order]
    factor = inverse_factor(hessian, weights.damp)
    codes = quantize(weight, factor.upper, weights, order, kept, statistics.scale_dtype)
    result = Result.of(codes, info={"damp": factor.damp, "dead": factor.dead})
    result.info["error"] = relative_error(result.weight, weight, statistics.hessian)
    return result
