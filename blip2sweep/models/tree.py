"""The module tree of a model compared with its anatomy."""

from __future__ import annotations

from torch import nn

from blip2sweep.models.anatomy import Anatomy


def tree(model: nn.Module, anatomy: Anatomy) -> tuple[dict[str, tuple[int, int, bool]], dict[str, int]]:
    """The arguments of `Anatomy.verify`: (linears, blocks).

    linears: {path: (out_features, in_features, has bias)} of every nn.Linear below the paths of stacks. blocks: {stack
    path: number of blocks}; a module that is no list is one block.
    """
    stacks = {s.path: s.whole for part in anatomy.parts.values() for s in part.stacks}
    modules = dict(model.named_modules())
    linears = {
        path: (m.out_features, m.in_features, m.bias is not None)
        for path, m in modules.items()
        if isinstance(m, nn.Linear) and any(path.startswith(stack + ".") for stack in stacks)
    }
    lists = {path: m for path in stacks if isinstance(m := modules.get(path), nn.ModuleList)}
    alone = {path: 1 for path, whole in stacks.items() if whole and path in modules and path not in lists}
    return linears, {path: len(m) for path, m in lists.items() if not stacks[path]} | alone


def verify(model: nn.Module, anatomy: Anatomy) -> None:
    """Raise UserError where the model's linears or blocks differ from conf/model."""
    anatomy.verify(*tree(model, anatomy))
