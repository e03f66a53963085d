"""Quantized layers put into the model while a calibration runs, and taken back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from blip2sweep.apply.patch import input_quantizer, quantized
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.machine.memory import is_out_of_memory
from blip2sweep.models.anatomy import Linear
from blip2sweep.models.load import Loaded


class Placed:
    """As a context it leaves the model as it was."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self._originals: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._hooks: list[Any] = []
        self._paths: set[str] = set()

    def put_all(self, layers: Iterable[tuple[Linear, Scheme]], prepared: Mapping[str, Prepared]) -> None:
        """Layers that are in place already stay: quantizing them twice would be something else."""
        for x, scheme in layers:
            if x.path not in self._paths:
                self._put(x.path, scheme, prepared.get(x.path))

    def _put(self, path: str, scheme: Scheme, prepared: Prepared | None) -> None:
        module = linear(self.loaded, path)
        known = (prepared.weight,) if prepared and prepared.weight is not None else quantized(path, module, scheme)
        for parameter, value in zip((module.weight, module.bias), known, strict=False):
            self._originals.append((parameter, parameter.data))
            parameter.data = value.to(parameter.device)
        if scheme.input_activations is not None:
            quantizer = input_quantizer(module, scheme.input_activations, prepared)
            self._hooks.append(module.register_forward_pre_hook(quantizer.hook))
        self._paths.add(path)

    def restore(self) -> None:
        for parameter, original in self._originals:
            parameter.data = original
        for hook in self._hooks:
            hook.remove()
        self._originals, self._hooks, self._paths = [], [], set()

    def __enter__(self) -> Placed:
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()


def linear(loaded: Loaded, path: str) -> nn.Linear:
    module = loaded.model.get_submodule(path)
    assert isinstance(module, nn.Linear)
    return module


@contextmanager
def understandable_oom() -> Iterator[None]:
    """Says which knob to turn; a MemoryError is what the ledger calls `oom`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(f"calibration ran out of memory ({error}); right: a smaller calibration.n_samples") from error
