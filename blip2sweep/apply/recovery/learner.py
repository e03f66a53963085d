"""The tensors that are trained, in float32, and the optimizer that changes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from blip2sweep.compression.recover.adapters import Adapter, Trained, Tuned, factors, insert
from blip2sweep.compression.undo import Undo

if TYPE_CHECKING:
    from blip2sweep.compression.recover.spec import Recovery

WARM_UP = 20  # steps in which the learning rate rises, at most a fifth of all
LAST = 0.05  # share of the learning rate that is left at the end
MOST_NORM = 1.0  # gradients of a larger norm are shortened to it
FIRST_SCALE = 2.0**12  # of the loss in float16, whose gradients would otherwise vanish; halved where they overflow


class _Twin(NamedTuple):
    """A parameter of the model, and what is trained: itself, or its copy in float32. kept: the dtype of the layer."""

    used: nn.Parameter
    trained: nn.Parameter
    kept: torch.dtype


class Learner:
    """Adapters or copies of whole layers in a model. Leaving it as a context puts the model back, bit for bit.

    paths: of the layers. In float16 the loss is multiplied by `scale`.
    """

    def __init__(self, model: nn.Module, paths: Sequence[str], spec: Recovery) -> None:
        self.spec, self.undo = spec, Undo()
        try:
            self.twins = dict(self._adapters(model, paths) if spec.has_adapters else self._layers(model, paths))
        except BaseException:
            self.undo.back()
            raise
        self.tensors = [twin.trained for twin in self.twins.values()]
        self.optimizer = torch.optim.AdamW(self.tensors, lr=spec.learning_rate, weight_decay=0.0, foreach=False)
        half = any(p.dtype == torch.float16 for p in model.parameters())
        self.scale = FIRST_SCALE if half else 1.0

    def _adapters(self, model: nn.Module, paths: Sequence[str]) -> Iterator[tuple[str, _Twin]]:
        for path, layer in insert(model, paths, self.spec, self.undo).items():
            for name, parameter in zip("ab", factors(layer), strict=True):
                parameter.data = parameter.data.float()
                parameter.requires_grad_(True)
                yield f"{path}:{name}", _Twin(parameter, parameter, layer.weight.dtype)

    def _layers(self, model: nn.Module, paths: Sequence[str]) -> Iterator[tuple[str, _Twin]]:
        for path in paths:
            for name, parameter in model.get_submodule(path).named_parameters(recurse=False):
                copy = parameter.data.clone()
                self.undo.data(parameter, copy)
                parameter.requires_grad_(True)
                own = parameter if copy.dtype == torch.float32 else nn.Parameter(copy.float())
                yield f"{path}:{name}", _Twin(parameter, own, copy.dtype)

    def gradients(self) -> list[Tensor]:
        """The gradients of the last loss in float32, without the scale. They are forgotten by the model."""
        found = []
        for twin in self.twins.values():
            given = twin.used.grad
            found.append(torch.zeros_like(twin.trained) if given is None else given.float() / self.scale)
            twin.used.grad = None
        return found

    def step(self, gradients: Sequence[Tensor], number: int) -> bool:
        """Change the tensors. number: of the step, from 0. False where a gradient was not finite: nothing changes then."""
        norms = [torch.linalg.vector_norm(g).cpu() for g in gradients]  # with a device_map they are on several
        norm = torch.linalg.vector_norm(torch.stack(norms))
        if not torch.isfinite(norm):
            return False
        factor = float(torch.clamp(MOST_NORM / (norm + 1e-6), max=1.0))
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.spec, number)
        for tensor, gradient in zip(self.tensors, gradients, strict=True):
            tensor.grad = gradient * factor
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._used()
        return True

    @torch.no_grad()
    def _used(self) -> None:
        for twin in self.twins.values():
            if twin.used is not twin.trained:
                twin.used.data.copy_(twin.trained.data)

    def copies(self) -> list[Tensor]:
        return [x.detach().clone() for x in self.tensors]

    @torch.no_grad()
    def set(self, values: Sequence[Tensor]) -> None:
        for tensor, value in zip(self.tensors, values, strict=True):
            tensor.data.copy_(value)
        self._used()

    def made(self, values: Sequence[Tensor]) -> dict[str, Trained]:
        """{path: what was trained for the layer}, in the dtype that the layer had. values: from `copies`."""
        by_path: dict[str, dict[str, Tensor]] = {}
        for (name, twin), value in zip(self.twins.items(), values, strict=True):
            path, _, own = name.rpartition(":")
            by_path.setdefault(path, {})[own] = value.to(twin.kept)
        return {
            p: Adapter(x["a"], x["b"]) if "a" in x else Tuned(x["weight"], x.get("bias")) for p, x in by_path.items()
        }

    def __enter__(self) -> Learner:
        return self

    def __exit__(self, *error: object) -> None:
        for twin in self.twins.values():
            twin.used.requires_grad_(False)
            twin.used.grad = None
        self.undo.back()


def rate(spec: Recovery, step: int) -> float:
    """The learning rate of a step, from 0: it rises for some steps, and falls in a line to a twentieth."""
    warm = max(1, min(WARM_UP, math.ceil(spec.steps / 5)))
    return spec.learning_rate * min(1.0, (step + 1) / warm) * max(LAST, 1 - step / spec.steps)
