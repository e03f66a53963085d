"""A folder of IR files: NAME.xml and NAME.bin of each graph, the processor's files, and config.json."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import openvino as ov
import torch

from blip2sweep.compression.quantize.codes import Codes
from blip2sweep.exporting import Written
from blip2sweep.exporting.ir import readme
from blip2sweep.exporting.ir.convert import converted, finish, weight_names
from blip2sweep.exporting.made import Made
from blip2sweep.exporting.traced import graphs_of
from blip2sweep.models.graphs import Graph, Graphs
from blip2sweep.models.load import DTYPES
from blip2sweep.recipe.back_end import left, without


class Put(NamedTuple):
    """What was written of one graph. layers: paths of those that have codes in it. payload: bytes of its constants."""

    layers: frozenset[str]
    payload: int


def write(made: Made, folder: Path) -> Written:
    """Write a model whose recipe is in it.

    Raises RuntimeError unless exactly the quantized layers of the recipe have codes, and each is in one graph.
    """
    _check(made)
    stored = DTYPES[str(made.job["model"].get("stored") or "float32")]
    graphs = graphs_of(made.loaded, made.job["model"])
    written = [_write(graph, model, made, stored, folder) for graph, model in _models(made, graphs)]
    put = [path for one in written for path in one.layers]
    if sorted(put) != sorted(made.codes):
        raise RuntimeError(f"codes of {len(made.codes)} layers, and the graphs have {len(put)} of them")
    made.loaded.processor.save_pretrained(folder)
    made.loaded.model.config.save_pretrained(folder)
    made.loaded.model.generation_config.save_pretrained(folder)
    readme.write(made, graphs, folder)
    payload = sum(one.payload for one in written)
    return Written(payload, sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) - payload)


def _models(made: Made, graphs: Graphs) -> Iterator[tuple[Graph, ov.Model]]:
    """Each graph and its model; one after the other, unless NNCF has to compress some of their layers."""
    each = ((graph, converted(graph, _codes(graph, made))) for graph in graphs.graphs)
    if not left(made.recipe):
        yield from each
        return
    from blip2sweep.exporting.nncf import compress

    models = compress(made, graphs, {graph.name: model for graph, model in each})
    yield from ((graph, models[graph.name]) for graph in graphs.graphs)


def _check(made: Made) -> None:
    planned, found = without(made.recipe).schemes.keys(), made.codes.keys()
    if planned != found:
        example = next(iter(planned ^ found))
        raise RuntimeError(f"codes of {len(found)} layers for a recipe of {len(planned)}, such as {example}")


def _codes(graph: Graph, made: Made) -> dict[str, Codes]:
    return {path: made.codes[path] for path, _ in weight_names(graph) if path in made.codes}


def _write(graph: Graph, model: ov.Model, made: Made, stored: torch.dtype, folder: Path) -> Put:
    finish(model, graph, stored)
    ov.save_model(model, folder / f"{graph.name}.xml", compress_to_fp16=False)
    return Put(frozenset(_codes(graph, made)), (folder / f"{graph.name}.bin").stat().st_size)
