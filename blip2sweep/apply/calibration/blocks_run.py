"""Runs a part's blocks one at a time on the calibration batches, through the model's own forward pass.

Blocks that have been run are replaced by stubs that return the last output. An exception ends the pass after the last
block that is wanted. So masks, position biases and cross-attention come from the model itself, whatever its family.
Memory holds one hidden state for each batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import nn

from blip2sweep.models.part import Part
from blip2sweep.models.stubbed import stubbed


class _Done(Exception):
    """The last block that was wanted has run."""


class BlockRunner:
    """Goes once through the blocks of a part, in their order.

    batches: each call runs the part's stage on one batch of samples. batch: the number of the batch that is running,
    for hooks.
    """

    def __init__(self, model: nn.Module, part: Part, batches: Sequence[Callable[[], object]]) -> None:
        self.model, self.batches = model, batches
        self.blocks = [model.get_submodule(path) for s in part.stacks for path in s.block_paths]
        self._stack = [n for n, s in enumerate(part.stacks) for _ in range(s.n)]
        self._position = 0  # the first block that has not been run
        self._outputs: list[dict[int, object]] = [{} for _ in batches]  # {stack: output of its last block that was run}
        self.batch = 0

    def run_through(self, block: int) -> None:
        """Run the blocks up to `block`, this one included, as the model is now. Their outputs are kept."""
        if block >= self._position:
            self._run(block, keep=True)
            self._position = block + 1

    def advance_to(self, block: int) -> None:
        """Run the blocks before `block` that have not been run."""
        if block > self._position:
            self.run_through(block - 1)

    def observe(self, block: int) -> None:
        """Run `block`, which must be the next one, so that hooks see it. Its output is not kept."""
        assert block == self._position
        self._run(block, keep=False)

    @torch.no_grad()
    def _run(self, last: int, keep: bool) -> None:
        with ExitStack() as stack:
            for i in range(self._position):
                stack.enter_context(stubbed(self.blocks[i], partial(self._last_output, self._stack[i])))
            outputs: list[dict[int, object]] = [dict(x) for x in self._outputs]
            for i in range(self._position, last + 1):
                stack.callback(self.blocks[i].register_forward_hook(partial(self._after, i, last, outputs)).remove)
            for self.batch, batch in enumerate(self.batches):  # noqa: B020
                try:
                    batch()
                except _Done:
                    continue
        if keep:
            self._outputs = outputs

    def _last_output(self, stack: int) -> object:
        return self._outputs[self.batch][stack]

    def _after(
        self, block: int, last: int, outputs: list[dict[int, object]], module: nn.Module, args: object, output: object
    ) -> None:
        """The forward hook of a block."""
        outputs[self.batch][self._stack[block]] = output
        if block == last:
            raise _Done
