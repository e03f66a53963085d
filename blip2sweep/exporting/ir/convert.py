"""A graph as an OpenVINO model: traced, named, of any lengths, its keys and values kept inside."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import openvino as ov
import torch
from openvino._offline_transformations import apply_make_stateful_transformation

from blip2sweep.compression.quantize.codes import Codes
from blip2sweep.exporting.ir.constants import narrow, put_codes
from blip2sweep.models.graphs import Graph
from blip2sweep.models.graphs.past import example


def converted(graph: Graph, codes: Mapping[str, Codes]) -> ov.Model:
    """The model of a graph whose module is float32 on the CPU. Keys and values are inputs and outputs of it.

    codes: {path of a layer in the model: its codes}, of layers in this graph or in others. Raises RuntimeError where a
    layer with codes is not found.
    """
    examples = (*(i.example for i in graph.inputs), *(example(s) for s in graph.states))
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: lengths that a graph is free in are inputs of it
        model = ov.convert_model(graph.module, example_input=examples)
    _name(model, graph)
    put_codes(model, {name: codes[path] for path, name in weight_names(graph) if path in codes})
    model.validate_nodes_and_infer_types()
    return model


def finish(model: ov.Model, graph: Graph, stored: torch.dtype) -> None:
    """Make a converted model as it is written: keys and values inside, and numbers of 16 bits where that loses nothing.

    stored: the dtype in which what has no codes is written.
    """
    if stored.itemsize == 2:
        narrow(model, stored)
    model.validate_nodes_and_infer_types()
    if graph.states:
        apply_make_stateful_transformation(model, {s.past: s.present for s in graph.states})


def weight_names(graph: Graph) -> Iterator[tuple[str, str]]:
    """(path of a linear layer in the model, name of its weight's constant)."""
    for inside, path in graph.paths.items():
        for name, module in graph.module.get_submodule(inside).named_modules():
            if isinstance(module, torch.nn.Linear):
                tail = f".{name}" if name else ""
                yield f"{path}{tail}", f"self.{inside}{tail}.weight"


def _name(model: ov.Model, graph: Graph) -> None:
    names = [*((i.name, _shape(i.example.shape, i.free)) for i in graph.inputs)]
    names += [(s.past, _shape((2, *s.shape), {0: "rows", 1 + s.shape.index(0): "past"})) for s in graph.states]
    shapes: dict[ov.Output, ov.PartialShape] = {}
    for port, (name, shape) in zip(model.inputs, names, strict=True):
        port.get_tensor().set_names({name})
        shapes[port] = shape
    for port, name in zip(model.outputs, [*graph.outputs, *(s.present for s in graph.states)], strict=True):
        port.get_tensor().set_names({name})
    model.reshape(shapes)


def _shape(sizes: tuple[int, ...] | torch.Size, free: Mapping[int, str]) -> ov.PartialShape:
    return ov.PartialShape([-1 if axis in free else size for axis, size in enumerate(sizes)])
