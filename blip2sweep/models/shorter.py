"""A model with dropped blocks as one that was built with fewer: what transformers can write and load again.

transformers gives some layers and rules to a block by its number. So not every set of blocks can be left out of a
checkpoint: what could not be loaded as it ran is refused, and never loaded with layers drawn at random.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from blip2sweep.errors import UserError
from blip2sweep.models.architecture import implementation
from blip2sweep.models.config_file import read_config
from blip2sweep.models.dropped import Change, hollow
from blip2sweep.models.dropped import changes as dropped
from blip2sweep.models.part import LANGUAGE, VISION
from blip2sweep.wire.model_section import ModelSection

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

KINDS, FULL = "layer_types", "fullatt_block_indexes"  # what each block is; which blocks see the whole picture
DEEP, READ = "deepstack_visual_indexes", "vision_feature_layer"  # states of the tower that are read behind it
RIGHT = "right: other blocks, or a cell of a sweep, which needs no checkpoint"


class _List(NamedTuple):
    """A list of blocks. field: where its config says how many. kept: the numbers of those that are left, of n."""

    path: str
    role: str | None
    field: str
    kept: list[int]
    n: int


def changes(model: PreTrainedModel, section: ModelSection) -> Iterator[Change]:
    """What takes dropped blocks out of their lists, and out of the config. Each is made before the next is asked for.

    section: the composed `model` section. Raises UserError, one line, where transformers could not load the model as it
    runs.
    """
    lists = [one for one in _lists(model, section) if len(one.kept) < one.n]
    _check_counts(model, section, lists)
    for one in lists:
        parent, _, name = one.path.rpartition(".")
        owner, blocks = model.get_submodule(parent), list(model.get_submodule(one.path).children())
        left = nn.ModuleList([blocks[i] for i in one.kept])
        yield Change(owner, "_modules", {**owner._modules, name: left})
        yield from _config_changes(model.config, one)
    if lists:
        _check_layers(model)


def check(folder: Path, section: ModelSection, paths: Collection[str]) -> None:
    """The same question before weights are read. folder: of the checkpoint. paths: of the blocks that are dropped."""
    config, wrong = read_config(folder, section)
    if wrong or config is None:  # which loading tells
        return
    with torch.device("meta"):
        model = implementation(section).model_class(config)
    for change in dropped(model, paths):
        setattr(*change)
    for change in changes(model, section):
        setattr(*change)


def _lists(model: PreTrainedModel, section: ModelSection) -> Iterator[_List]:
    for part in section["parts"].values():
        for stack in part["stacks"].values():
            blocks = model.get_submodule(stack["path"])
            if isinstance(blocks, nn.ModuleList):
                kept = [i for i, block in enumerate(blocks) if not hollow(block)]
                yield _List(stack["path"], part.get("role"), str(stack.get("blocks", "")), kept, len(blocks))


def _check_counts(model: PreTrainedModel, section: ModelSection, lists: Sequence[_List]) -> None:
    """Raise UserError where lists that have one number of blocks in the config would have several."""
    for one in lists:
        for other in _lists(model, section):
            if other.field == one.field and len(other.kept) != len(one.kept):
                raise _refused(
                    f"{one.field} of its config is the number of blocks of {one.path} and of {other.path}, which would "
                    f"be {len(one.kept)} and {len(other.kept)}"
                )


def _refused(why: str) -> UserError:
    return UserError(
        f"drop_blocks: a checkpoint of Hugging Face cannot hold the model without these blocks: {why}; {RIGHT}"
    )


# ---- what the config says by the number of a block


def _config_changes(config: PreTrainedConfig, one: _List) -> Iterator[Change]:
    inner, _, count = one.field.rpartition(".")
    own = getattr(config, inner) if inner else config
    yield Change(own, count, len(one.kept))
    kinds = getattr(own, KINDS, None)
    if kinds is not None and len(kinds) == one.n:
        yield Change(own, KINDS, [kinds[i] for i in one.kept])
    if (full := getattr(own, FULL, None)) is not None:
        yield Change(own, FULL, [one.kept.index(i) for i in full if i in one.kept])
    if one.role == VISION:
        yield from _states(config, own, one)
    if one.role == LANGUAGE:
        _check_entered(config, one)


def _states(config: PreTrainedConfig, own: PreTrainedConfig, one: _List) -> Iterator[Change]:
    """The states of a tower that are read behind it: each is the output of the last block that is left before."""
    if deep := getattr(own, DEEP, None):
        places = [bisect_right(one.kept, i) - 1 for i in deep]
        if min(places) < 0 or len(set(places)) < len(places):
            raise _refused(f"{DEEP} of its config reads the states behind blocks {_said(deep)}, some of which are one")
        yield Change(own, DEEP, places)
    read = getattr(config, READ, None)
    if read is not None:
        there = [_state(i, one) for i in read] if isinstance(read, list | tuple) else _state(read, one)
        yield Change(config, READ, there)


def _state(number: int, one: _List) -> int:
    """The number of a hidden state among those that are left. State i is the output of block i - 1."""
    behind = bisect_left(one.kept, number if number >= 0 else one.n + 1 + number)
    return behind if number >= 0 else behind - len(one.kept) - 1


def _check_entered(config: PreTrainedConfig, one: _List) -> None:
    """Raise UserError where features of a picture would enter behind another block than they do."""
    entered = len(getattr(getattr(config, "vision_config", None), DEEP, None) or ())
    if one.kept[:entered] != list(range(entered)):
        raise _refused(f"features of a picture enter behind blocks 0-{entered - 1} of {one.path}, by their numbers")


def _check_layers(model: PreTrainedModel) -> None:
    """Raise UserError where the class of the model would not make these tensors, and no others, of the config."""
    with torch.device("meta"):
        built = type(model)(deepcopy(model.config))
    expected, found = ({k: v.shape for k, v in m.state_dict().items()} for m in (built, model))
    lacking = sorted(k for k, shape in expected.items() if found.get(k) != shape)
    more = sorted(found.keys() - expected.keys())
    if lacking or more:
        say = [f"{lacking[0]} would be drawn at random"] if lacking else []
        say += [f"{more[0]} would be left out"] if more else []
        raise _refused(
            f"transformers gives layers to a block by its number, so {' and '.join(say)} when it is loaded "
            f"({len(lacking)} and {len(more)} such tensors)"
        )


def _said(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
