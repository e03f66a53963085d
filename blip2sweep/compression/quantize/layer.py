"""Quantizes one linear layer inside its model: its weights are exchanged, and its inputs are rounded before it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from blip2sweep.compression.quantize import arithmetic
from blip2sweep.compression.quantize.activations import InputQuantizer
from blip2sweep.compression.quantize.codes import Codes, dequantize
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.scheme import Activations, Scheme
from blip2sweep.compression.undo import Undo
from blip2sweep.compression.zeros import kept, with_zeros
from blip2sweep.errors import UserError
from blip2sweep.models.dtypes import STORED

Method = Callable[..., tuple[Tensor, Tensor | None]]
_told: ContextVar[dict[str, Codes] | None] = ContextVar("codes", default=None)


@contextmanager
def telling_codes() -> Iterator[dict[str, Codes]]:
    """In it, {path: codes} of the layers whose values `exchange` computes or has from calibration. A layer without codes has
    no entry."""
    found: dict[str, Codes] = {}
    token = _told.set(found)
    try:
        yield found
    finally:
        _told.reset(token)


def exchange(
    path: str,
    module: nn.Module,
    scheme: Scheme,
    undo: Undo,
    ready: Prepared | None = None,
    known: Sequence[Tensor] | None = None,
) -> tuple[Tensor, ...]:
    """Put a layer's new values into it, and a quantizer of its input where the scheme has one. Returns the values.

    ready: what calibration made of the layer. known: values that were computed before. Raises UserError for a layer
    that device_map left off the device.
    """
    linear = _linear(path, module)
    made = _calibrated(path, linear, ready) or known
    values = tuple(made) if made is not None else quantized(path, linear, scheme)
    for parameter, value in zip((linear.weight, linear.bias), values, strict=False):
        undo.data(parameter, value.to(parameter.device))
    if scheme.input_activations is not None:
        undo.pre_hook(linear, input_quantizer(linear, scheme.input_activations, ready).hook)
    return values


def _calibrated(path: str, module: nn.Linear, ready: Prepared | None) -> tuple[Tensor, ...] | None:
    weight = None if ready is None else ready.values(module.weight.dtype)
    if ready is not None:
        _tell(path, ready.codes)
    return None if weight is None else (weight,)


def _tell(path: str, codes: Codes | None) -> None:
    told = _told.get()
    if told is not None and codes is not None:
        told[path] = codes


def scale_dtype(module: nn.Module) -> torch.dtype:
    """The dtype in which the scales of a layer, and the numbers of any module, are stored."""
    stored: torch.dtype = getattr(module, STORED, module.get_parameter("weight").dtype)
    return stored


def _linear(path: str, module: nn.Module) -> nn.Linear:
    assert isinstance(module, nn.Linear)
    if module.weight.device.type == "meta":
        raise UserError(f"{path}: left on meta or disk by model.device_map; right: one that holds every touched layer")
    return module


def input_quantizer(module: nn.Linear, activations: Activations, ready: Prepared | None) -> InputQuantizer:
    """The quantizer of a layer's input, on the device of its weight: calibration may have measured on another one."""
    made = (ready or Prepared("", None)).quantizer(activations)
    there = {
        name: x.to(module.weight.device)
        for name in ("prescale", "low", "high")
        if (x := getattr(made, name)) is not None
    }
    return made._replace(**there)


@torch.no_grad()
def quantized(path: str, module: nn.Linear, scheme: Scheme) -> tuple[Tensor, ...]:
    """The weight, and the bias where it is changed, that the scheme's method makes of a layer. The zeros of a sparse layer
    stay."""
    weight, bias, own = module.weight, module.bias, arithmetic(scheme.weights.method)
    # Copies: a method that works in place must not reach the original.
    if hasattr(own, "codes"):
        codes: Codes = own.codes(_float_copy(weight), scheme.weights, scale_dtype(module))
        value = _checked(path, "weight", dequantize(codes), weight)
        _tell(path, codes.with_zeros(kept(module)))
        return (with_zeros(module, value),)
    method: Method = own.apply
    new_weight, new_bias = method(_float_copy(weight), None if bias is None else _float_copy(bias), scheme.weights)
    checked = [with_zeros(module, _checked(path, "weight", new_weight, weight))]
    if bias is not None:
        checked.append(_checked(path, "bias", new_bias, bias))
    return tuple(checked)


def _float_copy(x: Tensor) -> Tensor:
    return x.detach().to(torch.float32, copy=True)


def _checked(path: str, name: str, new: Tensor | None, old: Tensor) -> Tensor:
    """`new` in the dtype of `old`.

    Raises RuntimeError for another shape, FloatingPointError for values that are not finite.
    """
    if new is None or new.shape != old.shape:
        shape = None if new is None else tuple(new.shape)
        raise RuntimeError(f"{path}.{name}: the method returned shape {shape} for {tuple(old.shape)}")
    result = new.to(old.dtype)
    if not torch.isfinite(result).all():
        raise FloatingPointError(f"{path}.{name}: the method returned values that are not finite in {old.dtype}")
    return result
