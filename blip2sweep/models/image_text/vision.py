"""Pixels -> states of the vision tower -> features of pictures, through the model's own `get_image_features`.

Blocks that have run are replaced for the time of a pass by stubs that hand on the stored state. A pass ends after the
last block that is wanted. So the arguments of blocks, windows and masks come from the model itself. A state also holds
the outputs of earlier blocks that are read behind the tower.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blip2sweep.models.image_text.pixels import Arguments, feature_rows
from blip2sweep.models.learning import inference
from blip2sweep.models.part import CONNECTOR, VISION
from blip2sweep.models.ragged import Rows
from blip2sweep.models.stubbed import stubbed

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutputWithPooling


class _Done(Exception):
    """The last block that was wanted has run."""


class Tower:
    """The blocks of a vision tower and the pass through them.

    blocks: all. n: how many of them are read; what is behind only runs. taps: blocks whose outputs are read behind the
    tower as well. behind: the modules that read states of the tower; their dtype may be another.
    """

    def __init__(
        self, model: PreTrainedModel, where: torch.device, blocks: Sequence[nn.Module], n: int,
        behind: Sequence[nn.Module],
    ) -> None:  # fmt: skip
        self.model, self.all, self.n, self.behind = model, blocks, n, behind
        self.arguments = Arguments(model, where)
        self.taps = [i for i in taps(model.config, len(blocks)) if i < n]

    @property
    def dtype(self) -> torch.dtype:
        return next(p.dtype for block in self.all for p in block.parameters())  # a dropped block has none

    def features(self, rows: Rows, pixels: bool) -> BaseModelOutputWithPooling:
        """One pass. pixels: whether the rows are pixels; otherwise they say only the pictures' shapes."""
        given = self.arguments(rows, self.dtype) if pixels else self.arguments.placeholders(rows, self.dtype)
        with ExitStack() as stack:
            for module in self.behind:
                stack.callback(module.register_forward_pre_hook(_in_its_dtype).remove)
            return self.model.model.get_image_features(**given, return_dict=True)

    def outputs(self, state: Rows, block: int) -> dict[int, Tensor]:
        """{block: its output} of a state before `block`: of the last one, and of earlier ones that are read later."""
        kept = [block - 1, *(i for i in self.taps if i < block - 1)]
        values = [x.contiguous() for x in state.values.chunk(len(kept), -1)]  # some models view them in other shapes
        return dict(zip(kept, values, strict=True)) if block else {}

    def state(self, outputs: Mapping[int, Tensor], block: int, rows: Rows) -> Rows:
        """The state before `block`: the inverse of `outputs`. They stand side by side in the last dimension."""
        here = outputs[block - 1].device  # with a device_map blocks are on several
        kept = [outputs[i].to(here) for i in (block - 1, *(i for i in self.taps if i < block - 1))]
        return Rows(kept[0] if len(kept) == 1 else torch.cat(kept, -1), rows.lengths, rows.further)

    @contextmanager
    def without(self, outputs: Mapping[int, Tensor], block: int) -> Iterator[None]:
        """Inside, the blocks before `block` put out what they did when the state was made, and so do unread ones."""
        unread = range(self.n, len(self.all)) if block == self.n else ()
        with ExitStack() as stack:
            for i in (*range(block), *unread):
                stack.enter_context(stubbed(self.all[i], partial(outputs.get, i, outputs[block - 1])))
            yield


def taps(config: PreTrainedConfig, n: int) -> list[int]:
    """The blocks whose outputs are read besides the last state, as the config says."""
    deep = getattr(config.vision_config, "deepstack_visual_indexes", None) or []
    chosen = getattr(config, "vision_feature_layer", None)
    several = [i if i >= 0 else n + 1 + i for i in chosen] if isinstance(chosen, list | tuple) else []
    return sorted({*deep, *(i - 1 for i in several if i > 0)})  # hidden state i is the output of block i - 1


class Vision:
    """A `BlockStage`: rows of pixels -> the state behind the last block that is read."""

    name = VISION

    def __init__(self, tower: Tower) -> None:
        self.tower = tower

    @property
    def n_blocks(self) -> int:
        return self.tower.n

    def run(self, rows: Rows) -> Rows:
        return self.blocks(rows, 0, self.n_blocks)

    def enter(self, rows: Rows) -> Rows:
        """The state before block 0 is the pixels: what makes tokens of them runs with the first block."""
        return rows

    @inference
    def blocks(self, state: Rows, start: int, stop: int) -> Rows:
        if start == stop:
            return state
        outputs = self.tower.outputs(state, start)
        with ExitStack() as stack:
            stack.enter_context(self.tower.without(outputs, start))
            for i in {stop - 1, *(tap for tap in self.tower.taps if start <= tap < stop)}:
                hook = partial(_keep, outputs, i, i == stop - 1)
                stack.callback(self.tower.all[i].register_forward_hook(hook).remove)
            stack.enter_context(suppress(_Done))
            self.tower.features(state, pixels=not start)
        return self.tower.state(outputs, stop, state)

    def leave(self, state: Rows) -> Rows:
        return state


def _keep(seen: dict[int, Tensor], block: int, last: bool, module: nn.Module, args: object, output: object) -> None:
    out = output[0] if isinstance(output, tuple) else output
    assert isinstance(out, Tensor)
    seen[block] = out
    if last:
        raise _Done


class Connector:
    """An `ImageStage`: the state behind the tower's blocks -> the features that the language model reads."""

    name = CONNECTOR

    def __init__(self, tower: Tower) -> None:
        self.tower = tower

    @inference
    def run(self, rows: Rows) -> Rows:
        with self.tower.without(self.tower.outputs(rows, self.tower.n), self.tower.n):
            found = self.tower.features(rows, pixels=False)
        return feature_rows(found.pooler_output, getattr(found, "deepstack_features", None) or (), rows)


def _in_its_dtype(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    dtype = next(module.parameters()).dtype
    return tuple(x.to(dtype) for x in args)
