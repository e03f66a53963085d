"""What training makes of linear layers, and how it is put into a model: LoRA by peft, merged or not, or whole layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

    from blip2sweep.compression.recover.spec import Recovery
    from blip2sweep.compression.undo import Undo
    from blip2sweep.models.part import Linear

NAME = "default"  # peft's own name of an adapter


@dataclass(frozen=True, eq=False)
class Adapter:
    """A low-rank adapter of a layer: a (rank, in) and b (out, rank), in the layer's dtype."""

    a: Tensor
    b: Tensor

    def added(self, weight: Tensor, scale: float) -> Tensor:
        """A new weight, computed in float32 and cast to the dtype of the old one."""
        a, b = (x.to(weight.device, torch.float32) for x in (self.a, self.b))
        return (weight.float() + scale * (b @ a)).to(weight.dtype)


@dataclass(frozen=True, eq=False)
class Tuned:
    """The weight (out, in) and bias (out) of a layer that was trained itself, in its dtype."""

    weight: Tensor
    bias: Tensor | None = None


Trained = Adapter | Tuned


@torch.no_grad()
def put(
    model: nn.Module, pairs: Sequence[tuple[Linear, Recovery]], trained: Mapping[str, object], undo: Undo
) -> None:  # fmt: skip
    """Put what was trained into a model. Originals are never written to.

    Raises RuntimeError where a layer of the recipe was not trained.
    """
    lacking = [x.path for x, _ in pairs if not isinstance(trained.get(x.path), Adapter | Tuned)]
    if lacking:
        raise RuntimeError(f"{len(lacking)} layers of the recipe were not trained, such as {lacking[0]}")
    beside = [(x, s) for x, s in pairs if s.has_adapters and not s.merged]
    for spec in dict.fromkeys(s for _, s in beside):
        _put_beside(model, [x.path for x, s in beside if s == spec], spec, trained, undo)
    for x, spec in pairs:
        if not (spec.has_adapters and not spec.merged):
            _put_into(model.get_submodule(x.path), spec, trained[x.path], undo)


def _put_into(module: nn.Module, spec: Recovery, found: object, undo: Undo) -> None:
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    if isinstance(found, Adapter):
        undo.data(weight, found.added(weight.data, scale(spec)))
        return
    assert isinstance(found, Tuned)
    for parameter, new in ((weight, found.weight), (bias, found.bias)):
        if isinstance(parameter, Tensor) and new is not None:
            undo.data(parameter, new.to(parameter.device, parameter.dtype))


def _put_beside(
    model: nn.Module, paths: Sequence[str], spec: Recovery, trained: Mapping[str, object], undo: Undo
) -> None:  # fmt: skip
    for path, layer in insert(model, paths, spec, undo).items():
        found = trained[path]
        assert isinstance(found, Adapter)
        for parameter, value in zip(factors(layer), (found.a, found.b), strict=True):
            parameter.data = value.to(parameter.device, parameter.dtype)
            parameter.requires_grad_(False)


def scale(spec: Recovery) -> float:
    """What the product of the two factors is multiplied by (Hu et al., 2021, section 4.1)."""
    assert spec.alpha is not None
    assert spec.rank is not None
    return spec.alpha / spec.rank


def factors(layer: LoraLayer) -> tuple[nn.Parameter, nn.Parameter]:
    """(a, b) of a layer that has an adapter."""
    return layer.lora_A[NAME].weight, layer.lora_B[NAME].weight


def insert(model: nn.Module, paths: Sequence[str], spec: Recovery, undo: Undo) -> dict[str, LoraLayer]:
    """{path: the layer with its new adapter}, in the order of the model's modules. b is zero, so nothing changes yet.

    a is drawn from the spec's seed on the CPU. The global generator is left as it was.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=spec.rank or 0, lora_alpha=spec.alpha, lora_dropout=0.0, bias="none", target_modules=list(paths)
    )  # fmt: skip
    plain = {path: model.get_submodule(path) for path in paths}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            inject_adapter_in_model(config, model, NAME)
        made = {path: m for path, m in model.named_modules() if path in plain and m is not plain[path]}
    finally:  # so that every change goes through `undo`
        for path, module in plain.items():
            model.set_submodule(path, module)
        vars(model).pop("peft_config", None)
    if len(made) != len(plain):
        raise RuntimeError(f"peft made adapters for {len(made)} of {len(plain)} layers")
    for path, module in made.items():
        undo.module(model, path, module)
    return made
