"""Recipes put into a model by difference: from one cell to the next only the layers that change are touched."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blip2sweep.cache.tensors import Memo
from blip2sweep.canonical import canonical_json
from blip2sweep.compression.quantize.activations import InputQuantizer
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.scheme import Activations, Scheme
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Linear
from blip2sweep.models.load import Loaded
from blip2sweep.recipe import Recipe

Method = Callable[..., tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, eq=False)
class Applied:
    """A model with a recipe in it. Leaving it as a context, or `restore()`, puts the original weights back.

    layers: paths of the recipe's layers; layers_changed: how many of them differ bitwise from the checkpoint; written,
    recalled: of those that had to be exchanged, how many were computed and how many remembered.
    """

    patch: Patch
    layers: tuple[str, ...]
    layers_changed: int
    written: int
    recalled: int

    def restore(self) -> None:
        """A second call does nothing."""
        self.patch.restore()

    def __enter__(self) -> Applied:
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()


def apply(loaded: Loaded, recipe: Recipe) -> Applied:
    """Quantize exactly the recipe's layers, once; as `Patch.apply`."""
    return Patch(loaded).apply(recipe)


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer as it is in the model now: its scheme, the tensors it had before, whether a bit differs."""

    scheme: Scheme
    originals: tuple[tuple[Tensor, Tensor], ...]
    changed: bool
    key: str | None = None  # of what calibration made of it
    hook: Any = None  # the quantizer of its input


class Patch:
    """The one hand that changes a model's weights. Originals are never written to, so `restore` is bit for bit.

    memo: keeps quantized weights by (module, scheme), for recipes that share layers.
    """

    def __init__(self, loaded: Loaded, memo: Memo | None = None) -> None:
        self.loaded, self.memo = loaded, memo
        self._modules = {path: m for path, m in loaded.model.named_modules() if isinstance(m, nn.Linear)}
        self._everything = [x.path for part in loaded.anatomy.parts.values() for x in part.linears]
        self._now: dict[str, _Layer] = {}

    def apply(self, recipe: Recipe, prepared: Mapping[str, Prepared] | None = None) -> Applied:
        """Make the model what the recipe says, computing in float32 and casting back to each layer's dtype.

        prepared: what calibration made of layers, by path (blip2sweep/apply/calibration).

        Raises FloatingPointError naming the layer whose weights would not be finite, RuntimeError when the layers
        that differ are not those of the recipe, UserError for a layer that device_map left off the device. In each
        case the model is as loaded.
        """
        ready = prepared or {}
        wanted = {x.path: (x, scheme, ready.get(x.path)) for x, scheme in recipe.touched()}
        before = {path: self._modules[path].weight.data_ptr() for path in self._everything if path not in self._now}
        try:
            for path in [p for p, now in self._now.items() if p not in wanted or not _same(now, *wanted[p][1:])]:
                before[path] = self._take_back(path)
            new = [entry for path, entry in wanted.items() if path not in self._now]
            recalled = sum(self._put(*entry) for entry in new)
            self._check(before, set(wanted))
        except BaseException:
            self.restore()
            raise
        layers = tuple(path for path in self._everything if path in self._now)
        changed = sum(now.changed for now in self._now.values())
        return Applied(self, layers, changed, len(new) - recalled, recalled)

    def restore(self) -> None:
        """Put the original tensors themselves back. A second call does nothing."""
        for path in list(self._now):
            self._take_back(path)

    def _take_back(self, path: str) -> int:
        now = self._now.pop(path)
        if now.hook is not None:
            now.hook.remove()
        for parameter, original in now.originals:
            parameter.data = original
        return self._modules[path].weight.data_ptr()

    def _check(self, before: dict[str, int], wanted: set[str]) -> None:
        """The layers whose storage was exchanged since `before`, and those that stayed exchanged, are the recipe's."""
        moved = {path for path, pointer in before.items() if self._modules[path].weight.data_ptr() != pointer}
        found = moved | (self._now.keys() - before.keys())
        if found != wanted or self._now.keys() != wanted:
            raise RuntimeError(f"layers written differ from the recipe: {sorted(found ^ wanted)[:5]} …")

    def _put(self, layer: Linear, scheme: Scheme, ready: Prepared | None = None) -> bool:
        """Exchange the storages, never the Parameters: tied names and hooks keep seeing them. True if remembered."""
        module = self._modules[layer.path]
        if module.weight.device.type == "meta":
            raise UserError(
                f"{layer.path}: left on meta or disk by model.device_map; right: one that holds every touched layer"
            )
        calibrated = (ready.weight,) if ready is not None and ready.weight is not None else None
        found = None if calibrated else self._recall(layer, scheme)
        values = calibrated or found or quantized(layer.path, module, scheme)
        parameters = [p for p in (module.weight, module.bias) if p is not None][: len(values)]
        originals = tuple((p, p.data) for p in parameters)
        changed = any(
            not torch.equal(_bits(p.data), _bits(v.to(p.device))) for p, v in zip(parameters, values, strict=True)
        )
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data = value.to(parameter.device)
        hook = _input_hook(module, scheme, ready)
        self._now[layer.path] = _Layer(scheme, originals, changed, ready.key if ready else None, hook)
        if found is None and calibrated is None and self.memo is not None:
            self.memo.put(weights_key(layer, scheme), values)
        return found is not None

    def _recall(self, layer: Linear, scheme: Scheme) -> tuple[Tensor, ...] | None:
        return None if self.memo is None else self.memo.get(weights_key(layer, scheme))


def _same(now: _Layer, scheme: Scheme, ready: Prepared | None) -> bool:
    return now.scheme == scheme and now.key == (ready.key if ready else None)


def _input_hook(module: nn.Linear, scheme: Scheme, ready: Prepared | None) -> Any:
    """The quantizer of the layer's input, as a forward pre-hook; None where inputs are left alone."""
    if scheme.input_activations is None:
        return None
    return module.register_forward_pre_hook(input_quantizer(module, scheme.input_activations, ready).hook)


def input_quantizer(module: nn.Linear, activations: Activations, ready: Prepared | None) -> InputQuantizer:
    """Of a layer's input, where its weight is: what calibration measured may be on another device."""
    made = (ready or Prepared("", None)).quantizer(activations)
    there = {
        name: x.to(module.weight.device)
        for name in ("prescale", "low", "high")
        if (x := getattr(made, name)) is not None
    }
    return made._replace(**there)


def weights_key(layer: Linear, scheme: Scheme, calibration: str | None = None, upstream: str | None = None) -> str:
    """The name of a layer's quantized weights. calibration: the key of the samples a method measured, upstream: that of
    the quantized layers before it while they were measured; both null for methods that see weights alone."""
    return canonical_json([layer.path, scheme.as_dict(), calibration, upstream])


@torch.no_grad()
def quantized(path: str, module: nn.Linear, scheme: Scheme) -> tuple[Tensor, ...]:
    """The weight, and the bias where there is one, that the scheme's method makes of a layer."""
    weight, bias = module.weight, module.bias
    method: Method = importlib.import_module(f"blip2sweep.compression.quantize.{scheme.weights.method}").apply
    # Copies: a method that works in place must not reach the original.
    new_weight, new_bias = method(_float_copy(weight), None if bias is None else _float_copy(bias), scheme.weights)
    checked = [_checked(path, "weight", new_weight, weight)]
    if bias is not None:
        checked.append(_checked(path, "bias", new_bias, bias))
    return tuple(checked)


def _float_copy(x: Tensor) -> Tensor:
    return x.detach().to(torch.float32, copy=True)


def _checked(path: str, name: str, new: Tensor | None, old: Tensor) -> Tensor:
    """`new` in the dtype of `old`, of the same shape and finite there."""
    if new is None or new.shape != old.shape:
        shape = None if new is None else tuple(new.shape)
        raise RuntimeError(f"{path}.{name}: the method returned shape {shape} for {tuple(old.shape)}")
    result = new.to(old.dtype)
    if not torch.isfinite(result).all():
        raise FloatingPointError(f"{path}.{name}: the method returned values that are not finite in {old.dtype}")
    return result


def _bits(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.uint8)
