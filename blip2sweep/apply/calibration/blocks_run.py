"""A part's blocks run one at a time on the calibration batches, with whatever the model's own loop passes to them.

Blocks that are behind are replaced by stubs that give back the last output, and the block of interest ends the run. So
masks, position biases and cross-attention come from the model itself, for OPT and T5 alike, and memory holds one state
a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from blip2sweep.models.anatomy import Part


class _Done(Exception):
    """The block of interest has run."""


class Walk:
    """One way through a part. batches: each runs the part on one batch of samples."""

    def __init__(self, model: nn.Module, part: Part, batches: Sequence[Callable[[], object]]) -> None:
        self.model, self.batches = model, batches
        self.blocks = [model.get_submodule(f"{s.path}.{i}") for s in part.stacks for i in range(s.n)]
        self._stack = [n for n, s in enumerate(part.stacks) for _ in range(s.n)]
        self._position = 0  # the first block that has not been run
        self._outputs: list[dict[int, Any]] = [{} for _ in batches]  # {stack: output of its last block that was run}
        self.batch = 0  # the one that is running

    def through(self, block: int) -> None:
        """Run the blocks up to and with `block` as the model is now, and keep where that leads."""
        if block >= self._position:
            self._run(block, keep=True)
            self._position = block + 1

    def to(self, block: int) -> None:
        """Be just before `block`."""
        if block > self._position:
            self.through(block - 1)

    def look(self, block: int) -> None:
        """Run `block` from where the walk is, for its hooks; nothing is kept."""
        assert block == self._position
        self._run(block, keep=False)

    @torch.no_grad()
    def _run(self, last: int, keep: bool) -> None:
        with ExitStack() as stack:
            for i in range(self._position):
                stack.enter_context(_stubbed(self.blocks[i], partial(self._last_output, self._stack[i])))
            kept: list[dict[int, Any]] = [dict(x) for x in self._outputs]
            for i in range(self._position, last + 1):
                stack.callback(self.blocks[i].register_forward_hook(partial(self._after, i, last, kept)).remove)
            for self.batch, batch in enumerate(self.batches):  # noqa: B020
                try:
                    batch()
                except _Done:
                    continue
        if keep:
            self._outputs = kept

    def _last_output(self, stack: int) -> Any:
        return self._outputs[self.batch][stack]

    def _after(
        self, block: int, last: int, kept: list[dict[int, Any]], module: nn.Module, args: Any, output: Any
    ) -> None:
        kept[self.batch][self._stack[block]] = output
        if block == last:
            raise _Done


@contextmanager
def _stubbed(module: nn.Module, output: Callable[[], Any]) -> Iterator[None]:
    module.forward = lambda *args, **kwargs: output()
    try:
        yield
    finally:
        del module.forward
