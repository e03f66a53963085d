"""Graphs of a model in files: NAME.onnx, with its weights in NAME.onnx.data beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import onnx_ir as ir
import torch
from torch import Tensor

from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.quantize.codes import Codes
from blip2sweep.exporting.made import Made
from blip2sweep.exporting.onnx_graphs.filled import filled, layers_of
from blip2sweep.exporting.onnx_graphs.traced import model_paths, traced
from blip2sweep.models.graphs import Graph
from blip2sweep.recipe.back_end import left

SMALL = 256  # bytes of a tensor that stays in the graph's own file


class Put(NamedTuple):
    """A graph in a file. payload: bytes of its numbers. layers: paths of the linear layers in it."""

    path: Path
    payload: int
    layers: frozenset[str]


class Traces:
    """The traced graphs of a model. They are kept while the same blocks of the same model are asked for."""

    def __init__(self) -> None:
        self.of: tuple[object, ...] = ()
        self.kept: dict[str, ir.Model] = {}

    def __call__(self, graph: Graph, *of: object) -> ir.Model:
        """A graph of a model that `of` tells from others."""
        if self.of != of:
            self.of, self.kept = of, {}
        if graph.name not in self.kept:
            self.kept[graph.name] = traced(graph)
        return self.kept[graph.name]


def save(made: Made, graphs: tuple[Graph, ...], folder: Path, traces: Traces) -> list[Put]:
    """Write the graphs of a model to a folder. Raises RuntimeError unless exactly the recipe's layers have codes there."""
    codes = coded(made)
    stored = made.job["model"].get("stored")
    dtype = None if stored is None else getattr(torch, str(stored))
    put = []
    for graph in graphs:
        model = traces(graph, made.job["model"], made.recipe.dropped_paths)
        layers = frozenset(layers_of(model))
        full = filled(model, weights_of(graph), {p: c for p, c in codes.items() if p in layers}, lambda _: dtype)
        put.append(Put(_save(full, folder / f"{graph.name}.onnx"), payload(full), layers))
    _check(made, codes, [path for one in put for path in one.layers])
    return put


def weights_of(graph: Graph) -> dict[str, Tensor]:
    """{path in the model: tensor} of the parameters and buffers that a graph reads."""
    names = model_paths(graph)
    held = (*graph.module.named_parameters(remove_duplicate=False), *graph.module.named_buffers(remove_duplicate=False))
    return {names[name]: x.detach() for name, x in held}


def coded(made: Made) -> dict[str, Codes]:
    """The codes of a model. Their zero points are uint8, or floats in the dtype of scales where the method has such."""
    schemes = made.recipe.schemes
    return {path: _stored(codes, METHODS[schemes[path].weights.method].zero_point_bits == 16) for path, codes in made.codes.items()}  # fmt: skip


def _stored(codes: Codes, float_zero: bool) -> Codes:
    from dataclasses import replace

    zero = codes.zero_point
    if zero is None:
        return codes
    return replace(codes, zero_point=zero.to(codes.scale.dtype if float_zero else torch.uint8))


def _check(made: Made, codes: Mapping[str, Codes], there: list[str]) -> None:
    planned = made.recipe.schemes.keys() - left(made.recipe).keys()
    wrong = sorted((planned ^ codes.keys()) | (planned - set(there)) | {p for p in codes if there.count(p) != 1})
    if wrong:
        raise RuntimeError(
            f"{len(wrong)} layers have not the codes of the recipe in exactly one graph, such as {wrong[0]}"
        )


def _save(model: ir.Model, path: Path) -> Path:
    ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=SMALL)
    return path


def payload(model: ir.Model) -> int:
    """The bytes of all numbers of a graph."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
