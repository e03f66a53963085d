"""What a token does not read, as tensors that are added to scores.

A graph says its masks with rows and columns: the libraries' own ones depend on the lengths that they are traced with.
"""

from __future__ import annotations

import torch
from torch import Tensor

UNREAD = -65504.0  # finite in float16 too, because a row of padding reads nothing


def added(read: Tensor) -> Tensor:
    """What is added to scores, float32: 0 where a token is read. read: bool."""
    return (1.0 - read.to(torch.float32)) * UNREAD


def both_ways(mask: Tensor) -> Tensor:
    """(rows, 1, 1, tokens) float32: every token reads all that the mask (rows, tokens) has."""
    return added(mask[:, None, None] > 0)


def left_to_right(mask: Tensor, new: int) -> Tensor:
    """(rows, 1, new, all tokens) bool: each of the last `new` tokens reads itself and those before it.

    mask: (rows, all tokens).
    """
    return (gaps(mask, new) >= 0)[None, None] & (mask[:, None, None] > 0)


def gaps(mask: Tensor, new: int) -> Tensor:
    """(new, all tokens) int64: by how many tokens each of the last `new` tokens stands behind each of all."""
    number = torch.arange(mask.shape[1], device=mask.device)
    own = torch.arange(new, device=mask.device) + (mask.shape[1] - new)  # a slice would have a length of its own
    return own[:, None] - number[None]
