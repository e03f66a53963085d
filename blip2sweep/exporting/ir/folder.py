"""A folder of IR files: NAME.xml and NAME.bin of each graph, the processor's files, and config.json."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import openvino as ov
import torch

from blip2sweep.exporting import Written
from blip2sweep.exporting.ir.convert import converted, weight_names
from blip2sweep.exporting.made import Made
from blip2sweep.exporting.traced import graphs_of
from blip2sweep.models.graphs import Graph
from blip2sweep.models.load import DTYPES
from blip2sweep.recipe.back_end import without


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
    written = [_write(graph, made, stored, folder) for graph in graphs_of(made.loaded, made.job["model"]).graphs]
    put = [path for one in written for path in one.layers]
    if sorted(put) != sorted(made.codes):
        raise RuntimeError(f"codes of {len(made.codes)} layers, and the graphs have {len(put)} of them")
    made.loaded.processor.save_pretrained(folder)
    made.loaded.model.config.save_pretrained(folder)
    made.loaded.model.generation_config.save_pretrained(folder)
    payload = sum(one.payload for one in written)
    return Written(payload, sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) - payload)


def _check(made: Made) -> None:
    planned, found = without(made.recipe).schemes.keys(), made.codes.keys()
    if planned != found:
        example = next(iter(planned ^ found))
        raise RuntimeError(f"codes of {len(found)} layers for a recipe of {len(planned)}, such as {example}")


def _write(graph: Graph, made: Made, stored: torch.dtype, folder: Path) -> Put:
    layers = frozenset(path for path, _ in weight_names(graph) if path in made.codes)
    model = converted(graph, {path: made.codes[path] for path in layers}, stored)
    ov.save_model(model, folder / f"{graph.name}.xml", compress_to_fp16=False)
    return Put(layers, (folder / f"{graph.name}.bin").stat().st_size)
