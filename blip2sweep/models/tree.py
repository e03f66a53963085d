"""The real module tree held against the anatomy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.architecture import architecture

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def build_meta(model_config: Mapping[str, Any]) -> PreTrainedModel:
    """The model of `model_config["config"]` on the meta device: real modules and shapes, no weights, no files."""
    own = architecture(model_config).implementation()
    with torch.device("meta"):
        return own.model_class(own.config_class(**model_config["config"])).eval()


def tree(model: nn.Module, anatomy: Anatomy) -> tuple[dict[str, tuple[int, int, bool]], dict[str, int]]:
    """What `Anatomy.verify` takes: every nn.Linear below the stacks' paths as path -> (out_features, in_features, has
    bias), and stack path -> number of blocks."""
    stacks = [s.path for part in anatomy.parts.values() for s in part.stacks]
    modules = dict(model.named_modules())
    linears = {
        path: (m.out_features, m.in_features, m.bias is not None)
        for path, m in modules.items()
        if isinstance(m, nn.Linear) and any(path.startswith(stack + ".") for stack in stacks)
    }
    return linears, {path: len(m) for path in stacks if isinstance(m := modules.get(path), nn.ModuleList)}


def verify(model: nn.Module, anatomy: Anatomy) -> None:
    """Raise UserError where the model's linears or blocks differ from conf/model."""
    anatomy.verify(*tree(model, anatomy))
