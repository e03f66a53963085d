"""Which weights of a layer stay: those of the largest scores in their own row, as Wanda has it (arXiv:2306.11695).

The score of a weight is |w|·‖x‖₂, where ‖x‖₂ is the norm of its input over the calibration tokens. Without norms it is
|w|. Of equal scores the later column stays, as in the published code, which sorts stably.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from blip2sweep.compression.sparsity import GROUP, ZEROS

if TYPE_CHECKING:
    from torch import Tensor

    from blip2sweep.compression.sparsity.spec import Sparse

AT_ONCE = 2**24  # weights: sorting takes 16 bytes for each
BITS = 8


@torch.no_grad()
def kept_weights(weight: Tensor, sparse: Sparse, norms: Tensor | None = None) -> Tensor:
    """(out, in) bool: the weights that stay. weight (out, in), of any dtype. norms (in) float32: None counts as 1."""
    pieces = weight.detach().split(max(1, AT_ONCE // weight.shape[1]))
    return torch.cat([_kept_rows(_score(rows, norms), sparse) for rows in pieces])


def _score(rows: Tensor, norms: Tensor | None) -> Tensor:
    size = rows.float().abs()
    return size if norms is None else size * norms


def _kept_rows(score: Tensor, sparse: Sparse) -> Tensor:
    if not sparse.structured:
        return _without_least(score, sparse.zeros(score.shape[1]))
    return _without_least(score.unflatten(1, (-1, GROUP)), ZEROS).flatten(1)


def _without_least(score: Tensor, zeros: int) -> Tensor:
    """True but for the `zeros` least scores along the last dimension."""
    least = score.sort(dim=-1, stable=True).indices[..., :zeros]
    return torch.ones_like(score, dtype=torch.bool).scatter_(-1, least, False)


def to_bits(kept: Tensor) -> Tensor:
    """(out, in) bool -> (out, ceil(in / 8)) uint8. The first weight is the lowest bit."""
    padded = torch.nn.functional.pad(kept, (0, -kept.shape[1] % BITS))
    return (padded.unflatten(1, (-1, BITS)) * _powers(kept.device)).sum(-1, dtype=torch.uint8)


def from_bits(bits: Tensor, in_features: int) -> Tensor:
    """The inverse of `to_bits`."""
    return (bits[..., None] & _powers(bits.device)).ne(0).flatten(1)[:, :in_features]


def _powers(device: torch.device) -> Tensor:
    return 2 ** torch.arange(BITS, dtype=torch.uint8, device=device)
