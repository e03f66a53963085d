"""AWQ as published: layers that read one tensor share one scale, which the module before them absorbs.

In a cell the weights are Q(W s) / s, which computes the same as the folded model: scaling the rows of a linear layer
commutes with its quantization per channel or group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from blip2sweep.compression.quantize import awq
from blip2sweep.compression.quantize.folds import traits
from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.compression.quantize.statistics import Result, Statistics
from blip2sweep.compression.undo import Undo
from blip2sweep.models.part import Fold, Linear

Call = tuple[tuple[object, ...], dict[str, object]]  # args and kwargs of one call of a module


class Member(NamedTuple):
    """A layer of a fold, with its scheme, its module and the statistics of its inputs."""

    layer: Linear
    scheme: Scheme
    module: nn.Linear
    statistics: Statistics


def together(fold: Fold, members: Sequence[Member], output_error: Callable[[], float] | None) -> dict[str, Result]:
    """Search one scale for the members.

    output_error: the error of the output of the fold's module with the weights as they are then. None: the error of the
    layers' own outputs.
    """
    weights = [m.module.weight.detach().float() for m in members]
    schemes = [m.scheme.weights for m in members]
    statistics = members[0].statistics
    assert statistics.hessian is not None
    error = (
        awq.own_error(weights, schemes, statistics.hessian, statistics.scale_dtype)
        if output_error is None
        else _error_of_scale(members, weights, output_error)
    )
    best = awq.search(statistics.mean_abs, schemes[0].grid or 20, error)
    return {m.layer.path: _finished(m, w, best, fold) for m, w in zip(members, weights, strict=True)}


def alone(member: Member) -> Result:
    """A layer before which no module can absorb a scale: only its range is searched."""
    weight = member.module.weight.detach().float()
    return _finished(member, weight, awq.identity(weight), None)


def _finished(m: Member, weight: Tensor, scale: awq.Scale, fold: Fold | None) -> Result:
    clips = m.scheme.weights.clips(traits(m.layer))
    result = awq.finish(weight, scale, m.scheme.weights, m.statistics, clips)
    result.info["fold"] = fold.before if fold else None
    if fold is None or m.scheme.input_activations is None:
        return result
    return replace(result, prescale=scale.s)  # in the folded model the layer's input is x / s, which is rounded


def _error_of_scale(
    members: Sequence[Member], weights: Sequence[Tensor], output_error: Callable[[], float]
) -> Callable[[Tensor], float]:
    """error(s): the output error with the scaled and quantized weights in the members."""

    def error(s: Tensor) -> float:
        with Undo() as undo:
            for m, w in zip(members, weights, strict=True):
                value = awq.scaled(w, s, m.scheme.weights, m.statistics.scale_dtype)
                undo.data(m.module.weight, value.to(m.module.weight.dtype))
            return output_error()

    return error


class OutputError:
    """The squared error of a module's output against its output when this was made, summed over calls.

    calls: the arguments of each call. weights: of each call's tokens, None where all count 1.
    """

    def __init__(self, module: nn.Module, calls: Sequence[Call], weights: Sequence[Tensor | None]) -> None:
        self.module, self.calls, self.weights = module, calls, weights
        self.outputs = [self._output(call) for call in calls]

    @torch.inference_mode()
    def _output(self, call: Call) -> Tensor:
        output = self.module(*call[0], **call[1])
        return output[0] if isinstance(output, tuple) else output

    def __call__(self) -> float:
        return sum(self._error(*seen) for seen in zip(self.outputs, self.calls, self.weights, strict=True))

    def _error(self, before: Tensor, call: Call, weights: Tensor | None) -> float:
        tokens = (self._output(call) - before).float().square().sum(-1, dtype=torch.float64).flatten()
        return float(tokens.sum() if weights is None else tokens @ weights.to(tokens))
