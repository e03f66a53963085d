"""Losses of both tiny models: the attributes of grid cells, and packed text behind image tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blip2sweep.tasks import scenes

from .batches import LEFT_OUT

WIDTH, PATCH = 64, 8  # of both models
SIDE = scenes.IMAGE_SIZE // PATCH  # patches a side
STRIDE = scenes.CELL // PATCH  # patches a cell's side
CELLS = scenes.GRID**2
CLASSES = (len(scenes.SHAPES) + 1, len(scenes.COLORS) + 1, len(scenes.SIZES) + 1)


class CellHead(nn.Module):
    """Names shape, colour and size of 9 cells from features (batch, 9, width); used in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, sum(CLASSES))

    def forward(self, features: Tensor, cells: Tensor) -> Tensor:
        """The summed cross-entropy against `cells` (batch, 9, 3)."""
        logits = self.linear(features).split(CLASSES, -1)
        losses = [F.cross_entropy(x.flatten(0, 1), cells[..., i].flatten()) for i, x in enumerate(logits)]
        return sum(losses, start=torch.zeros(()))


def mean_of_cells(patches: Tensor) -> Tensor:
    """Patch features (n, 36, width), averaged over each cell's four: (n, 9, width)."""
    n = len(patches)
    return patches.view(n, scenes.GRID, STRIDE, scenes.GRID, STRIDE, WIDTH).mean((2, 4)).flatten(1, 2)


def to_pixels(images: Tensor) -> Tensor:
    """uint8 (n, 48, 48, 3) to the normalised fp32 (n, 3, 48, 48) that the processor makes."""
    return images.permute(0, 3, 1, 2).float().div_(255).sub_(0.5).div_(0.25)


def attention_mask(segments: Tensor, n_front: int) -> Tensor:
    """Additive (n, 1, T, T), T = `n_front` + text: a segment sees the front and its own past, not the other segments."""
    n, length = segments.shape
    total = n_front + length
    seen = torch.zeros(n, total, total, dtype=torch.bool)
    seen[:, :, :n_front] = True
    seen[:, n_front:, n_front:] = segments[:, :, None] == segments[:, None]
    seen &= torch.ones(total, total, dtype=torch.bool).tril()
    return torch.zeros(n, 1, total, total).masked_fill_(~seen[:, None], -1e9)


def text_losses(
    hidden: Tensor, head: nn.Module, labels: Tensor, segments: Tensor, n_captions: int
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of caption tokens and of answer tokens, given the text's hidden states (n, length, width)."""
    wanted = labels != LEFT_OUT
    losses = F.cross_entropy(head(hidden[wanted]), labels[wanted], reduction="none")
    is_caption = segments[wanted] < n_captions
    return losses[is_caption].mean(), losses[~is_caption].mean()
