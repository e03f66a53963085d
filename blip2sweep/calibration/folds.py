"""AWQ as published: layers that read one tensor share one scale, which the operation before them absorbs.

In a cell the weights carry Q(W s) / s, which computes the same as the folded model (scaling the rows of a linear commutes
with its quantization per channel or group). `fold` does it for real, biases included.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from blip2sweep.anatomy import Fold, Linear, Part
from blip2sweep.methods import awq
from blip2sweep.methods.scheme import Scheme
from blip2sweep.methods.statistics import Result, Statistics

# Clipping queries and keys hurts, as published; so it does where they are one layer with the values.
UNCLIPPED = ("q", "k", "q_proj", "k_proj", "query", "key", "qkv")
NOT_BY_ROWS = ("hqq",)  # whose solver shrinks errors by an absolute threshold
Call = tuple[tuple[Any, ...], dict[str, Any]]  # args and kwargs of one call of a module


class Member(NamedTuple):
    """A layer of a fold, with its scheme, module, and what was measured of its inputs."""

    layer: Linear
    scheme: Scheme
    module: nn.Linear
    statistics: Statistics


def folds_of(
    part: Part, block: int, schemes: Mapping[str, Scheme], own: Collection[str]
) -> list[tuple[Fold, list[str]]]:
    """The legal folds of a block that have layers among `own`, AWQ's, with their paths. schemes: of all its touched layers."""
    inside = {x.name: x for x in part.linears if x.block == block}
    stack = next(x.stack for x in inside.values())
    found = []
    for fold in (f for f in part.folds if not f.stacks or stack in f.stacks):
        paths = [inside[n].path for n in fold.into if n in inside and inside[n].path in own]
        if paths and _legal(fold, inside, schemes):
            found.append((fold, paths))
    return found


def _legal(fold: Fold, inside: Mapping[str, Linear], schemes: Mapping[str, Scheme]) -> bool:
    """Scaling the rows of what stands before must commute with its quantization, which one scale for the whole tensor or an
    absolute threshold prevents; and whatever reads them must be AWQ's or left alone: its columns are scaled as well."""
    touched = {name: schemes[x.path] for name, x in inside.items() if x.path in schemes}
    before = touched.get(fold.before)
    if before is not None and (before.weights.strategy == "tensor" or before.weights.method in NOT_BY_ROWS):
        return False
    return all(touched[n].weights.method == "awq" for n in fold.into if n in touched)


def together(fold: Fold, members: Sequence[Member], judge: Callable[[], float] | None) -> dict[str, Result]:
    """One scale for the members. judge(): error of the module's output with the weights as they are then; None: the
    layers' own outputs."""
    weights = [m.module.weight.detach().float() for m in members]
    schemes = [m.scheme.weights for m in members]
    statistics = members[0].statistics
    assert statistics.hessian is not None
    error = awq.own_error(weights, schemes, statistics.hessian) if judge is None else _judged(members, weights, judge)
    best = awq.search(statistics.mean_abs, schemes[0].grid or 20, error)
    return {m.layer.path: _finished(m, w, best, fold) for m, w in zip(members, weights, strict=True)}


def alone(member: Member) -> Result:
    """A layer before which nothing can absorb a scale: clip search alone."""
    weight = member.module.weight.detach().float()
    return _finished(member, weight, awq.identity(weight), None)


def _finished(m: Member, weight: Tensor, scale: awq.Scale, fold: Fold | None) -> Result:
    clips = bool(m.scheme.weights.clip) and m.layer.name.rsplit(".", 1)[-1] not in UNCLIPPED
    result = awq.finish(weight, scale, m.scheme.weights, m.statistics, clips)
    result.info["fold"] = fold.before if fold else None
    if fold is None or m.scheme.input_activations is None:
        return result
    return replace(
        result, prescale=scale.s
    )  # in the folded model the layer's input is x / s, and that is what is rounded


def _judged(
    members: Sequence[Member], weights: Sequence[Tensor], judge: Callable[[], float]
) -> Callable[[Tensor], float]:
    def error(s: Tensor) -> float:
        originals = [m.module.weight.data for m in members]
        for m, w in zip(members, weights, strict=True):
            m.module.weight.data = awq.scaled(w, s, m.scheme.weights).to(m.module.weight.dtype)
        try:
            return judge()
        finally:
            for m, original in zip(members, originals, strict=True):
                m.module.weight.data = original

    return error


class Judge:
    """Error of a module's output against what it was when made, over calls it was seen to get.

    weights: of each call's tokens, None where all count 1.
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


# ---- for real


@torch.no_grad()
def fold(before: nn.Module, into: Sequence[nn.Linear], s: Tensor, piece: tuple[int, int] = (0, 1)) -> None:
    """Divide what `before` (a norm or linear) puts out by s, its bias too, and multiply the columns that read it."""
    i, n = piece
    rows = slice(i * len(s), (i + 1) * len(s)) if n > 1 else slice(None)
    for parameter in before.parameters(recurse=False):
        values = parameter.data[rows]
        parameter.data[rows] = (values / s.reshape(-1, *[1] * (values.dim() - 1))).to(parameter.dtype)
    for layer in into:
        layer.weight.mul_(s.to(layer.weight.dtype))
