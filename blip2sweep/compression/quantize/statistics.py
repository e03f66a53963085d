"""What a method may know of a layer's inputs: sums over tokens, of a size that does not grow with their number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor

RANK_UP_TO = 2048  # inputs: beyond them the eigenvalues cost more than the quantization; then a bound is given
TOKENS_PER_INPUT = 4  # fewer tokens than this for each input make a poor second moment


@dataclass(eq=False)
class Statistics:
    """Streaming sums of inputs x (tokens, in): `hessian` Σ v x xᵀ (in, in), where v is the token's weight.

    mean_abs Σ v |x| (divide by `weight`), low and high (in): the range of each input. All float32.
    Raises FloatingPointError for inputs that are not finite.
    """

    in_features: int
    device: torch.device | str = "cpu"
    with_hessian: bool = True
    tokens: int = 0
    weight: float = 0.0
    hessian: Tensor | None = None
    sum_abs: Tensor = field(init=False)
    low: Tensor = field(init=False)
    high: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.sum_abs = torch.zeros(self.in_features, device=self.device)
        self.low = torch.full_like(self.sum_abs, float("inf"))
        self.high = torch.full_like(self.sum_abs, float("-inf"))
        if self.with_hessian:
            self.hessian = torch.zeros(self.in_features, self.in_features, device=self.device)

    def add(self, x: Tensor, weights: Tensor | None = None) -> None:
        """x (…, in) of any dtype; weights: one a token, as many as x has rows (default 1)."""
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
        self.low, self.high = self.low.minimum(rows.amin(0)), self.high.maximum(rows.amax(0))
        if self.hessian is not None:
            weighted = rows * v.sqrt()[:, None]
            self.hessian.addmm_(weighted.T, weighted)

    @property
    def mean_abs(self) -> Tensor:
        """(in): the mean size of each input."""
        return self.sum_abs / max(self.weight, 1e-30)

    @property
    def largest(self) -> Tensor:
        """(in): the largest size of each input."""
        return self.low.abs().maximum(self.high.abs())

    def rank(self) -> int:
        """Rank of the Hessian; for many inputs the bound min(tokens, inputs that ever moved)."""
        alive = int((self.largest > 0).sum())
        bound = min(self.tokens, alive)
        if self.hessian is None or self.in_features > RANK_UP_TO:
            return bound
        return min(bound, _rank(self.hessian))


def _rank(hessian: Tensor) -> int:
    """Of a second moment summed up in float32. Its diagonal is brought to 1 first, or one outlier among the inputs would hide
    all others behind its rounding; what is then below the rounding of n entries counts as nothing."""
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

    weight (out, in), dequantized, for inputs as they come; prescale (in) or None: what the quantized input is divided
    by beforehand; info: figures for the record (damping, error …).
    """

    weight: Tensor
    prescale: Tensor | None = None
    info: LayerInfo = field(default_factory=lambda: LayerInfo())


def output_error(change: Tensor, hessian: Tensor) -> float:
    """Σ over tokens and outputs of (ΔW x)² = tr(ΔW H ΔWᵀ), for change ΔW (out, in)."""
    return float(((change @ hessian) * change).sum(dtype=torch.float64).clamp(min=0))


def relative_error(quantized: Tensor, weight: Tensor, hessian: Tensor) -> float:
    """|ΔW X| / |W X|."""
    return (output_error(quantized - weight, hessian) / max(output_error(weight, hessian), 1e-30)) ** 0.5
