"""A graph as ONNX without its weights. It is traced once for all recipes that leave the same blocks in the model.

Tracing takes seconds, and what a recipe changes is only what a few layers hold. So each linear layer is one node, `LINEAR`
of `DOMAIN`, that names its path in the model, and each weight is an input of the graph: nothing is folded or merged by
its value. `filled` puts operators and weights in their places.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import onnx_ir as ir
import torch
from onnxscript import optimizer
from torch import Tensor, nn

from blip2sweep.models.graphs import Graph
from blip2sweep.models.graphs.past import example

OPSET = 25  # the first one with codes of 2 bits
DOMAIN, LINEAR = "blip2sweep", "Linear"
for _name in (
    "onnxscript",
    "onnx_ir",
):  # importing onnxruntime's matmul_nbits_quantizer lets the root logger print INFO
    logging.getLogger(_name).setLevel(logging.WARNING)
_INSIDE = "module."  # how names of weights begin, because the graph's own module is inside of `_Flat`


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, libraries say nothing of what they lack or advise."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)


class _Flat(nn.Module):
    """A graph whose forward takes all tensors in one list."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.module(*tensors)
        return outputs


def traced(graph: Graph) -> ir.Model:
    """The graph with `LINEAR` nodes. Its weights are its last inputs, by their paths in the model."""
    names = model_paths(graph)
    with _marked(graph, names), quiet(), torch.no_grad():
        program = torch.onnx.export(
            _Flat(graph.module), _examples(graph), dynamo=True, optimize=False, verbose=False, opset_version=OPSET,
            dynamic_shapes=(_free_axes(graph),), input_names=_inputs(graph), output_names=_outputs(graph),
        )  # fmt: skip
    assert program is not None
    model: ir.Model = program.model
    _weights_as_inputs(model, names)
    with quiet():
        optimizer.optimize(model)
    _without_traces(model)
    return model


def model_paths(graph: Graph) -> dict[str, str]:
    """{name of a parameter, buffer or module inside of the graph: its path in the model}."""
    own = [n for n, _ in graph.module.named_parameters(remove_duplicate=False)]
    own += [n for n, _ in graph.module.named_buffers(remove_duplicate=False)]
    own += [n for n, _ in graph.module.named_modules(remove_duplicate=False)]
    return {name: _path(name, graph.paths) for name in own}


def _path(name: str, paths: Mapping[str, str]) -> str:
    """By the longest submodule that holds it. What lies in none keeps its name."""
    holders = [p for p in paths if name == p or name.startswith(f"{p}.")]
    longest = max(holders, key=len, default=None)
    return name if longest is None else paths[longest] + name[len(longest) :]


# ---- marking of layers


@contextmanager
def _marked(graph: Graph, names: Mapping[str, str]) -> Iterator[None]:
    """Inside, each linear layer is one node of the traced graph."""
    layers = [(names[name], m) for name, m in graph.module.named_modules() if isinstance(m, nn.Linear)]
    for path, layer in layers:
        layer.forward = partial(_linear, layer, path)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for _, layer in layers:
            del layer.forward


def _linear(layer: nn.Linear, path: str, x: Tensor) -> Tensor:
    tensors = (x, layer.weight) if layer.bias is None else (x, layer.weight, layer.bias)
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{LINEAR}", tensors, {"path": path}, dtype=x.dtype, shape=(*x.shape[:-1], layer.out_features), version=1
    )  # fmt: skip


# ---- inputs and outputs


def _examples(graph: Graph) -> tuple[Tensor, ...]:
    """Copies, because tracing takes one tensor that stands for two inputs as one of them."""
    return (*(i.example.clone() for i in graph.inputs), *map(example, graph.states))


def _free_axes(graph: Graph) -> tuple[dict[int, torch.export.Dim], ...]:
    """The axes of each input whose length is free, by its name."""
    lengths: dict[str, torch.export.Dim] = {}

    def named(axes: Mapping[int, str]) -> dict[int, torch.export.Dim]:
        return {axis: lengths.setdefault(name, torch.export.Dim(name)) for axis, name in axes.items()}

    grows = [{0: "rows", 1 + s.shape.index(0): "past_tokens"} for s in graph.states]
    return tuple(named(axes) for axes in (*(i.free for i in graph.inputs), *grows))


def _inputs(graph: Graph) -> list[str]:
    return [*(i.name for i in graph.inputs), *(s.past for s in graph.states)]


def _outputs(graph: Graph) -> list[str]:
    return [*graph.outputs, *(s.present for s in graph.states)]


# ---- after tracing


def _weights_as_inputs(model: ir.Model, names: Mapping[str, str]) -> None:
    for name, value in list(model.graph.initializers.items()):
        inside = name.removeprefix(_INSIDE)
        if inside in names:
            del model.graph.initializers[name]
            value.const_value, value.name = None, names[inside]
            model.graph.inputs.append(value)


def _without_traces(model: ir.Model) -> None:
    """Names of source files and lines are not for others."""
    model.producer_name = "blip2sweep"
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
