"""The folded model itself, which cells only compute: a scale that is divided out before and multiplied in behind."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def fold(before: nn.Module, into: Sequence[nn.Linear], s: Tensor, piece: tuple[int, int] = (0, 1)) -> None:
    """Divide what `before` (a norm or linear) puts out by s, its bias too, and multiply the columns that read it."""
    i, n = piece
    rows = slice(i * len(s), (i + 1) * len(s)) if n > 1 else slice(None)
    for parameter in before.parameters(recurse=False):
        values = parameter.data[rows]
        parameter.data[rows] = (values / s.reshape(-1, *[1] * (values.dim() - 1))).to(parameter.dtype)
    for layer in into:
        layer.weight.mul_(s.to(layer.weight.dtype))
