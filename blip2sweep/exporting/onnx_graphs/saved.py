"""Graphs of a model in files: NAME.onnx, with its weights in NAME.onnx.data beside it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import onnx
import onnx_ir as ir
import torch
from torch import Tensor

from blip2sweep.canonical import canonical_json
from blip2sweep.compression.quantize.codes import Codes
from blip2sweep.compression.quantize.scheme import Scheme, Weights
from blip2sweep.exporting import Written
from blip2sweep.exporting.made import Made
from blip2sweep.exporting.onnx_graphs.filled import filled, layers_of
from blip2sweep.exporting.onnx_graphs.layouts import float_zero, operator_of
from blip2sweep.exporting.onnx_graphs.readme import readme
from blip2sweep.exporting.onnx_graphs.rounded import round_layers
from blip2sweep.exporting.onnx_graphs.runner import runner
from blip2sweep.exporting.onnx_graphs.runner import runs as can_run
from blip2sweep.exporting.onnx_graphs.traced import model_paths, traced
from blip2sweep.exporting.traced import graphs_of
from blip2sweep.models.config_file import end_tokens
from blip2sweep.models.graphs import Graph
from blip2sweep.models.load import DTYPES
from blip2sweep.recipe.back_end import left

STATES = "blip2sweep_states"  # in a file's metadata: {past: [present, shape of one row]}
T = TypeVar("T")
SMALL = 256  # bytes of a tensor that stays in the graph's own file


class Put(NamedTuple):
    """A graph in a file. payload: bytes of its numbers. layers: paths of the linear layers in it."""

    payload: int
    layers: frozenset[str]


class Traces:
    """The traced graphs of the last model, while the same blocks are in it."""

    def __init__(self) -> None:
        self.name, self.kept = "", dict[str, ir.Model]()

    def __call__(self, graph: Graph, name: str) -> ir.Model:
        """name: of the model and its blocks, by which they are told from others."""
        if name != self.name:
            self.name, self.kept = name, {}
        if graph.name not in self.kept:
            self.kept[graph.name] = traced(graph)
        return self.kept[graph.name]


_traces = Traces()  # of the process: its cells come model by model


def write(made: Made, folder: Path) -> Written:
    """Write the graphs of a model whose recipe is in it, and what its processor needs.

    Raises RuntimeError unless exactly the quantized layers of the recipe are so in the graphs, each in one.
    """
    codes, by_library = coded(made), left(made.recipe)
    graphs = graphs_of(made.loaded, made.job["model"]).graphs
    put = [_write(graph, made, codes, by_library, folder) for graph in graphs]
    _check(made, codes, [path for one in put for path in one.layers])
    _around(made, graphs, folder)
    filling = sum(_filling(x, made.recipe.schemes[path].weights) for path, x in codes.items())
    payload = sum(one.payload for one in put) - filling
    notes = (
        [f"{filling:,} bytes fill rows of zero points up to whole bytes; they count with the headers"]
        if filling
        else []
    )
    return Written(payload, sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) - payload, notes)


def _filling(codes: Codes, weights: Weights) -> int:
    """The bytes by which MatMulNBits stores more than the zero points of a layer: each row begins with a byte."""
    rows, groups = codes.scale.shape
    whole, number = weights.strategy == "tensor", float_zero(weights)
    operator = operator_of(codes.bits, codes.values.shape[1], codes.group_size, number, whole)
    if codes.zero_point is None or number or operator != "MatMulNBits":
        return 0
    return rows * -(-groups * codes.bits // 8) - rows * groups * codes.bits // 8


def write_graph(graph: Graph, made: Made, folder: Path) -> Put:
    """Write one graph of a model without quantized layers."""
    return _write(graph, made, {}, {}, folder)


def _around(made: Made, graphs: Sequence[Graph], folder: Path) -> None:
    """What stands beside the graphs: the processor, configs, README.md, and run.py where it can run them."""
    model, runs = made.loaded.model, can_run(graphs)
    made.loaded.processor.save_pretrained(folder)
    model.config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    (folder / "README.md").write_text(readme(made, graphs, STATES, runs))
    if runs:
        ends = end_tokens(model.generation_config, model.config, model.config.get_text_config())
        (folder / "run.py").write_text(runner(graphs, model.config.image_token_index, ends, STATES))


def _write(graph: Graph, made: Made, codes: Mapping[str, Codes], by_library: Mapping[str, Scheme], folder: Path) -> Put:
    model = _traces(graph, canonical_json([made.job["model"], made.recipe.dropped_paths]))
    layers = frozenset(layers_of(model))
    stored, own = made.job["model"].get("stored"), _among(by_library, layers)
    dtype = DTYPES[str(stored)] if stored else None
    full = filled(model, weights_of(graph), _among(codes, layers), dtype, own)
    path = save(full, graph, folder)
    if own:
        round_layers(path, own)
    return Put(payload_of(path), layers)


def save(model: ir.Model, graph: Graph, folder: Path) -> Path:
    """Write a filled graph to a folder, over what has its name there. Returns the path of its own file."""
    path = folder / f"{graph.name}.onnx"
    model.metadata_props[STATES] = json.dumps({s.past: [s.present, s.shape] for s in graph.states})
    ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=SMALL)
    return path


def _among(found: Mapping[str, T], paths: Collection[str]) -> dict[str, T]:
    return {path: x for path, x in found.items() if path in paths}


def weights_of(graph: Graph) -> dict[str, Tensor]:
    """{path in the model: tensor} of the parameters and buffers that a graph reads."""
    names = model_paths(graph)
    held = (*graph.module.named_parameters(remove_duplicate=False), *graph.module.named_buffers(remove_duplicate=False))
    return {names[name]: x.detach() for name, x in held}


def coded(made: Made) -> dict[str, Codes]:
    """The codes of a model. Their zero points are uint8, or numbers in the dtype of scales where the method has such."""
    schemes = made.recipe.schemes
    return {path: _stored(codes, float_zero(schemes[path].weights)) for path, codes in made.codes.items()}


def _stored(codes: Codes, as_number: bool) -> Codes:
    if codes.zero_point is None:
        return codes
    return replace(codes, zero_point=codes.zero_point.to(codes.scale.dtype if as_number else torch.uint8))


def _check(made: Made, codes: Mapping[str, Codes], there: list[str]) -> None:
    by_library = left(made.recipe)
    planned = made.recipe.schemes.keys()
    wrong = sorted((planned ^ (codes.keys() | by_library.keys())) | {p for p in planned if there.count(p) != 1})
    if wrong:
        raise RuntimeError(
            f"{len(wrong)} layers are not as the recipe has them in exactly one graph, such as {wrong[0]}"
        )


def payload_of(path: Path) -> int:
    """The bytes of all numbers of a graph in a file."""
    held = onnx.load(path, load_external_data=False).graph.initializer
    return sum(ir.TensorProtoTensor(x).nbytes if not x.external_data else _length(x) for x in held)


def _length(tensor: onnx.TensorProto) -> int:
    return int(next(entry.value for entry in tensor.external_data if entry.key == "length"))
