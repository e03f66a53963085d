"""The processes that share one training: each takes its rows of every batch, and gradients are added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator


class Group(Protocol):
    """rank: of this process. count: of all."""

    rank: int
    count: int

    def added(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum over all processes of each tensor."""

    def agreed(self, asked: bool) -> bool:
        """What the first process says, in every process."""


class Alone:
    """One process."""

    rank, count = 0, 1

    def added(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return list(tensors)

    def agreed(self, asked: bool) -> bool:
        return asked


class Accelerated:
    """Several processes that accelerate has brought together (gloo on CPUs, nccl on GPUs)."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.rank, self.count = accelerator.process_index, accelerator.num_processes

    def added(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """All tensors travel as one, so that they are added in one order."""
        flat = self.accelerator.reduce(torch.cat([x.reshape(-1) for x in tensors]), reduction="sum")
        sizes = [x.numel() for x in tensors]
        return [x.view_as(like) for x, like in zip(flat.split(sizes), tensors, strict=True)]

    def agreed(self, asked: bool) -> bool:
        said = torch.tensor([float(asked and self.rank == 0)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(said, reduction="sum").item())
