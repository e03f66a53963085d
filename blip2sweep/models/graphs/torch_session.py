"""A graph that torch runs: the reference for every other session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from blip2sweep.models.graphs import Graph


class TorchSession:
    """A `Session` that calls the graph's own module."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.states = graph, list[Tensor]()

    @torch.inference_mode()
    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        outputs = self.graph.module(*(inputs[i.name] for i in self.graph.inputs), *self.states)
        n = len(self.graph.outputs)
        self.states = list(outputs[n:])
        return dict(zip(self.graph.outputs, outputs[:n], strict=True))

    def start(self, rows: int) -> None:
        self.states = [torch.zeros(rows, *s.shape) for s in self.graph.states]

    def select(self, rows: Tensor) -> None:
        self.states = [x[rows] for x in self.states]

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        before = self.states
        yield
        self.states = before
