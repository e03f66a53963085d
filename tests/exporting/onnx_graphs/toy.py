"""A small decoder as a graph: an embedding that is the head too, one block, and one state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blip2sweep.compression.quantize.codes import Codes
from blip2sweep.models.graphs import Graph, Input, State

WIDTH, INNER = 32, 80


class Toy(nn.Module):
    """ids (rows, tokens) and the inner states so far (rows, all, INNER) -> logits, and the longer states."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(24, WIDTH), nn.Linear(WIDTH, 24, bias=False)
        self.head.weight = self.embed.weight
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH, bias=False)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, ids: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        embeds = self.embed(ids)
        present = torch.cat([past, torch.relu(self.up(embeds))], 1)
        return self.head(self.norm(embeds + self.down(present.mean(1, keepdim=True)))), present


def toy_graph() -> Graph:
    torch.manual_seed(0)
    module = nn.Module()
    module.inner = Toy().eval().requires_grad_(False)
    module.forward = module.inner.forward
    ids = Input("ids", torch.zeros(2, 4, dtype=torch.long), {0: "rows", 1: "tokens"})
    return Graph("toy", module, (ids,), ("logits",), {"inner": "model.part"}, (State("past", "present", (0, INNER)),))


def random_codes(weight: Tensor, bits: int, group_size: int | None, zero: str | None, whole: bool = False) -> Codes:
    """Codes of a weight's shape. zero: `integer` or `number` zero points; None: symmetric."""
    draw = torch.Generator().manual_seed(bits)
    (out, row), most = weight.shape, 2**bits
    shape = (1, 1) if whole else (out, -(-row // (group_size or row)))
    values = torch.randint(0, most, (out, row), generator=draw, dtype=torch.uint8)
    scale = (torch.rand(shape, generator=draw) + 0.5) / most
    own = torch.randint(0, most, shape, generator=draw, dtype=torch.uint8)
    zero_point = None if zero is None else own if zero == "integer" else own + 0.25
    return Codes(values, scale, zero_point, bits, group_size)
