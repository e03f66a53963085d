"""Sizes of cells that run as graphs: what no graph reads is in no file, so it is not counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch

import blip2sweep
from blip2sweep.commands.export import expected_bytes, recipe_of
from blip2sweep.exporting import format_of
from blip2sweep.models.graphs.past import example
from blip2sweep.models.load import load
from blip2sweep.planning.cell import Cell
from blip2sweep.planning.model import planned_model
from blip2sweep.wire.model_section import ModelSection
from tests.checkpoints import conf
from tests.composing import plan
from tests.models.graphs.in_torch import graphs_of
from tests.params import quick
from tests.small_models import small

ASSETS = Path(blip2sweep.__file__).parent / "assets"
LLAVA = ("model=tiny-llava", "task.limit=2", "part=none")
GONE = 4 * 50112  # bytes of the last vision block and of the norm behind it


def cell(*words: str) -> Cell:
    made = plan(*words)
    return made.cells[str(made.keys[0])]


@pytest.mark.parametrize("name", quick(["tiny", "tiny-llava", "blip-vqa-base", "llava-onevision-0.5b"]))
def test_planning_counts_what_graphs_read(name: str, tmp_path: Path) -> None:
    """A parameter is read where an output has a gradient for it."""
    if name.startswith("tiny"):
        section, folder = conf(f"model/{name}"), ASSETS / name
    else:
        (section, write), folder = cast(Any, small(name)), tmp_path
        write(tmp_path)
    section = {**section, "path": str(folder)}
    loaded = load(cast("ModelSection", section), folder)
    for parameter in loaded.model.parameters():
        parameter.requires_grad_(True)
    for graph in graphs_of(loaded, section).graphs:
        inputs = (*(i.example for i in graph.inputs), *map(example, graph.states))
        with torch.enable_grad():
            cast(Any, sum(x.sum() for x in graph.module(*inputs))).backward()
    read = sum(p.numel() for p in loaded.model.parameters() if p.grad is not None)
    numbers = planned_model(cast("ModelSection", section)).graph_numbers
    assert numbers.total_bits == 32 * read
    assert (numbers.total > read) == ("llava" in name)


@pytest.mark.thorough
def test_only_rows_of_back_ends_that_run_graphs_leave_it_out() -> None:
    torch_row, graphs_row = (
        cast("dict[str, Any]", cell(*LLAVA, f"backend={b}").columns()) for b in ("torch", "openvino")
    )
    assert torch_row["model_bytes"] == 2712832
    assert graphs_row["model_bytes"] == 2712832 - GONE
    assert graphs_row["compression_ratio"] == pytest.approx(0.5 * 2712832 / (2712832 - GONE))
    assert (torch_row["bits_per_weight_touched"], graphs_row["bits_per_weight_touched"]) == (32, 32)


@pytest.mark.thorough
def test_a_dropped_block_that_nothing_reads_is_left_out_once() -> None:
    words = ("model=tiny-llava", "task.limit=2", "drop_blocks=vision:5", "quant.bits=none", "backend=openvino")
    assert cell(*words).columns()["model_bytes"] == cell(*LLAVA, "backend=openvino").columns()["model_bytes"]


@pytest.mark.thorough
@pytest.mark.parametrize(("form", "left"), [("openvino", GONE), ("onnx", GONE), ("compressed-tensors", 0)])
def test_an_export_of_a_cell_of_torch_is_compared_without_it(form: str, left: int) -> None:
    job = cell(*LLAVA).job()
    assert expected_bytes(job, recipe_of(job), format_of(form)) == 2712832 - left
    own = cell(*LLAVA, "backend=openvino").job()
    assert expected_bytes(own, recipe_of(own), format_of(form)) == 2712832 - GONE
