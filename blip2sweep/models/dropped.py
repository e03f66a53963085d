"""What runs in place of blocks that are dropped: the model computes what it would if it had been built without them.

A dropped block stays in its list, so every path and number is what it was, and what a model does by the number of a block
(sliding windows, states that are read behind the tower, features that enter between blocks) goes on by the same numbers.
The block is hollow: it has no modules and no parameters left, and puts out what it gets. It is still the object that the
hooks of transformers are on, which collect hidden states by the number of calls.

Only the numbers by which attention finds its keys and values in a cache are new ones, without gaps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from copy import deepcopy
from typing import NamedTuple

from torch import Tensor, nn
from transformers.models.t5.modeling_t5 import T5Block

from blip2sweep.models.block_params import STAYS
from blip2sweep.models.stubbed import handed_on

CACHE_INDEX = "layer_idx"


class Change(NamedTuple):
    """An attribute to set: the arguments of `Undo.attribute`."""

    owner: object
    name: str
    value: object


def hollow(module: nn.Module) -> bool:
    """Whether a block is dropped."""
    return not module._modules and vars(module).get("forward") in (handed_on, _with_biases)


def changes(model: nn.Module, paths: Collection[str]) -> Iterator[Change]:
    """What drops blocks. paths: their module paths. Each change is made before the next one is asked for."""
    for path in dict.fromkeys(path.rpartition(".")[0] for path in paths):
        blocks = list(model.get_submodule(path).children())
        left = [block for i, block in enumerate(blocks) if f"{path}.{i}" not in paths]
        yield from _bias(blocks, left)
        yield from _renumbered(left)
        for block in (b for b in blocks if b not in left):
            yield Change(block, "forward", _hand_on(block))
            for held in ("_modules", "_parameters", "_buffers"):
                yield Change(block, held, {})


def _hand_on(block: nn.Module) -> Callable[..., object]:
    return _with_biases if isinstance(block, T5Block) else handed_on


def _with_biases(
    hidden_states: Tensor, attention_mask: Tensor | None = None, position_bias: Tensor | None = None,
    encoder_hidden_states: Tensor | None = None, encoder_attention_mask: Tensor | None = None,
    encoder_decoder_position_bias: Tensor | None = None, **kwargs: object,
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """The forward of a T5 block that does nothing: blocks hand on the position biases beside the hidden states."""
    return hidden_states, position_bias, encoder_decoder_position_bias


def _bias(blocks: Sequence[nn.Module], left: Sequence[nn.Module]) -> Iterator[Change]:
    """T5's relative position bias is computed in the first block for all. The first one that is left takes it over."""
    if not isinstance(blocks[0], T5Block) or blocks[0] is left[0]:
        return
    old, new = (block.get_submodule("layer.0.SelfAttention") for block in (blocks[0], left[0]))
    bias, device = old.get_submodule(STAYS), next(new.parameters()).device
    if next(bias.parameters()).device != device:  # a device_map has divided the blocks
        bias = deepcopy(bias).to(device)
    yield Change(new, "_modules", {**new._modules, STAYS: bias})
    yield Change(new, f"has_{STAYS}", True)


def _renumbered(left: Sequence[nn.Module]) -> Iterator[Change]:
    """The numbers of the blocks that are left in a cache of keys and values.

    A cache must have no empty entry: its length is read from the first one, and rows are taken from all.
    """
    for i, block in enumerate(left):
        for module in block.modules():
            if type(vars(module).get(CACHE_INDEX)) is int and vars(module)[CACHE_INDEX] != i:
                yield Change(module, CACHE_INDEX, i)
