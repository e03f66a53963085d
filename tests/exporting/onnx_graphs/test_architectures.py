"""Graphs of every architecture as ONNX: the same texts and likelihoods as the model's own stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from blip2sweep.backends.onnxruntime.session import OrtSession, compiled
from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.exporting.onnx_graphs.filled import filled
from blip2sweep.exporting.onnx_graphs.saved import save, weights_of
from blip2sweep.exporting.onnx_graphs.traced import traced
from blip2sweep.models.graphs import Graphs
from blip2sweep.models.load import Loaded, load
from blip2sweep.tasks import Generation, load_task
from blip2sweep.wire.model_section import ModelSection
from tests.checkpoints import conf
from tests.miniatures import blip_config, write_blip
from tests.models.graphs.in_torch import graphs_of, same
from tests.small_models import small

BLIP = ("blip-image-captioning-base", "blip-vqa-base")
OTHERS = ("llava-1.5-7b", "gemma-3-4b", "instructblip-vicuna-7b", "llava-v1.6-mistral-7b", "smolvlm-256m")
GENERATION = Generation("Question: {} Answer:", 1, 6)


def in_onnx(loaded: Loaded, own: Graphs, folder: Path) -> Loaded:
    sessions = {
        g.name: OrtSession(compiled(save(filled(traced(g), weights_of(g), {}), g, folder), "cpu", "all", 1))
        for g in own.graphs
    }  # fmt: skip
    images, language = own.stages(sessions)
    return replace(loaded, images=images, language=language)


def model_of(name: str, folder: Path) -> tuple[Loaded, ModelSection]:
    if name in BLIP:
        own = cast("ModelSection", blip_config(name))
        return load(own, write_blip(folder / name, name)), own
    section, write = cast("tuple[ModelSection, Callable[[Path], object]]", small(name))
    write(folder)
    return load(section, folder), section


@pytest.mark.thorough
@pytest.mark.parametrize("name", [*BLIP, *OTHERS])
def test_texts_and_likelihoods_are_those_of_the_model(name: str, tmp_path: Path) -> None:
    loaded, section = model_of(name, tmp_path)
    data = load_task({**conf("task/shapes_vqa"), "limit": 8})
    models = (loaded, in_onnx(loaded, graphs_of(loaded, section), tmp_path))
    expected, found = (evaluate(x, data, GENERATION, nll_references=2, batch_size=4).records for x in models)
    same(expected, found)
