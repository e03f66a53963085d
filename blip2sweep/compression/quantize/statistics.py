"""What a method may know of a layer's inputs: sums over tokens. Their size does not grow with the number of tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor

from blip2sweep.compression.quantize.codes import Codes, dequantize

RANK_UP_TO = 2048  # inputs: for more, the eigenvalues cost more than the quantization, and a bound is given
TOKENS_PER_INPUT = 4  # with fewer the second moment is poor


@dataclass(eq=False)
class Statistics:
    """Sums over the inputs x (tokens, in) of a layer, added batch by batch, all float32.

    hessian (in, in): Σ v x xᵀ, where v is the weight of a token. mean_abs (in): Σ v |x| / Σ v. sum_squares (in): Σ v x².
    low, high (in): the range of each input. `add` raises FloatingPointError for inputs that are not finite.

    scale_dtype: in which the layer's scales are to be stored.
    """

    in_features: int
    device: torch.device | str = "cpu"
    with_hessian: bool = True
    scale_dtype: torch.dtype = torch.float32
    tokens: int = 0
    weight: float = 0.0
    hessian: Tensor | None = None
    sum_abs: Tensor = field(init=False)
    sum_squares: Tensor = field(init=False)
    low: Tensor = field(init=False)
    high: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.sum_abs = torch.zeros(self.in_features, device=self.device)
        self.sum_squares = torch.zeros_like(self.sum_abs)
        self.low = torch.full_like(self.sum_abs, float("inf"))
        self.high = torch.full_like(self.sum_abs, float("-inf"))
        if self.with_hessian:
            self.hessian = torch.zeros(self.in_features, self.in_features, device=self.device)

    def add(self, x: Tensor, weights: Tensor | None = None) -> None:
        """Add the inputs x (…, in), of any dtype. weights: one for each token of x, 1 by default."""
        rows = x.reshape(-1, self.in_features).float()
        if not torch.isfinite(rows).all():
            raise FloatingPointError("inputs are not finite")
        v = torch.ones(len(rows), device=rows.device) if weights is None else weights.to(rows.device, torch.float32)
        used = v > 0
        rows, v = (rows, v) if bool(used.all()) else (rows[used], v[used])
        if not len(rows):
            return
        self.tokens += len(rows)
        self.weight += float(v.sum())
        self.sum_abs += v @ rows.abs()
        self.sum_squares += v @ rows.square()
        self.low, self.high = self.low.minimum(rows.amin(0)), self.high.maximum(rows.amax(0))
        if self.hessian is not None:
            weighted = rows * v.sqrt()[:, None]
            self.hessian.addmm_(weighted.T, weighted)

    @property
    def mean_abs(self) -> Tensor:
        """(in): the mean absolute value of each input."""
        return self.sum_abs / max(self.weight, 1e-30)

    @property
    def norms(self) -> Tensor:
        """(in): the norm ‖x‖₂ of each input over the tokens."""
        return self.sum_squares.sqrt()

    @property
    def largest(self) -> Tensor:
        """(in): the largest absolute value of each input."""
        return self.low.abs().maximum(self.high.abs())

    def rank(self) -> int:
        """The rank of the Hessian. For many inputs its upper bound: min(tokens, inputs that were not constant zero)."""
        alive = int((self.largest > 0).sum())
        bound = min(self.tokens, alive)
        if self.hessian is None or self.in_features > RANK_UP_TO:
            return bound
        return min(bound, _rank(self.hessian))


def _rank(hessian: Tensor) -> int:
    """The rank of a second moment that was summed in float32.

    Its diagonal is scaled to 1 first. Otherwise one input that is much larger would hide all others behind its
    rounding. Eigenvalues below the rounding of n entries count as zero.
    """
    size = hessian.diagonal().double().clamp(min=0).sqrt()
    moved = size > 0
    h = hessian.double()[moved][:, moved] / size[moved] / size[moved, None]
    return int((torch.linalg.eigvalsh(h) > len(h) * torch.finfo(torch.float32).eps).sum())


class LayerInfo(TypedDict, total=False):
    """Figures of one calibrated layer, for the record of a cell. A method gives those that it has."""

    tokens: int  # whose inputs were summed
    rank: int  # of the second moment of the inputs
    inputs: int  # in_features
    seconds: float  # its share of the block's time
    error: float  # |ΔW X| / |W X|
    damp: float  # gptq: added to the diagonal of the Hessian, as a share of its mean
    dead: int  # gptq: inputs that are always zero
    ratio: float  # awq: the exponent of the scale that was chosen
    clip: bool  # awq: whether the range was searched
    fold: str | None  # awq: what absorbs the scale


@dataclass(frozen=True, eq=False)
class Result:
    """What a calibrated method made of a layer.

    weight (out, in): dequantized, for inputs as they come. prescale (in), or None: the quantized input is divided by it
    first. info: figures for the record. codes: those that the weight was made of, where the method has them.
    """

    weight: Tensor
    prescale: Tensor | None = None
    info: LayerInfo = field(default_factory=lambda: LayerInfo())
    codes: Codes | None = None

    @classmethod
    def of(cls, codes: Codes, prescale: Tensor | None = None, info: LayerInfo | None = None) -> Result:
        return cls(dequantize(codes), prescale, info or LayerInfo(), codes)


def output_error(change: Tensor, hessian: Tensor) -> float:
    """Σ over tokens and outputs of (ΔW x)² = tr(ΔW H ΔWᵀ), for the change ΔW (out, in) and H (in, in)."""
    return float(((change @ hessian) * change).sum(dtype=torch.float64).clamp(min=0))


def relative_error(quantized: Tensor, weight: Tensor, hessian: Tensor) -> float:
    """|ΔW X| / |W X|, where ΔW is `quantized` - `weight`, both (out, in)."""
    return (output_error(quantized - weight, hessian) / max(output_error(weight, hessian), 1e-30)) ** 0.5
