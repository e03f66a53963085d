"""Models of every architecture as IR files: OpenVINO writes what torch writes, in exact mode."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import blip2sweep
from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.models.graphs import Graphs
from blip2sweep.models.load import Loaded, load
from blip2sweep.tasks import Generation, load_task
from tests.checkpoints import conf
from tests.models.graphs.in_torch import graphs_of, same
from tests.small_models import small

pytest.importorskip("openvino")

ASSETS = Path(blip2sweep.__file__).parent / "assets"
GENERATION = Generation("Question: {} Answer:", 1, 6)
QUICK = ("blip-vqa-base",)
THOROUGH = (
    "blip-image-captioning-base", "gemma-3-4b", "paligemma-3b-224", "internvl3-1b", "smolvlm-256m",
    "llava-onevision-0.5b", "instructblip-vicuna-7b",
)  # fmt: skip


def in_openvino(loaded: Loaded, own: Graphs, folder: Path) -> Loaded:
    import openvino as ov

    from blip2sweep.backends.openvino.backend import EXACT
    from blip2sweep.backends.openvino.session import OpenVinoSession
    from blip2sweep.exporting.ir.convert import converted, finish

    sessions = {}
    for graph in own.graphs:
        xml, model = folder / f"{graph.name}.xml", converted(graph, {})
        finish(model, graph, torch.float32)
        ov.save_model(model, xml, compress_to_fp16=False)
        sessions[graph.name] = OpenVinoSession(xml, {**EXACT, "INFERENCE_NUM_THREADS": 1})
    images, language = own.stages(sessions)
    return replace(loaded, images=images, language=language)


@pytest.mark.thorough
@pytest.mark.parametrize("name", [*QUICK, *THOROUGH])
def test_openvino_writes_what_torch_writes(name: str, tmp_path: Path) -> None:
    section, write = small(name)
    write(tmp_path)
    loaded = load(section, tmp_path)
    compiled = in_openvino(loaded, graphs_of(loaded, section), tmp_path)
    data = load_task({**conf("task/shapes_vqa"), "limit": 10})
    same(*(evaluate(x, data, GENERATION, nll_references=2, batch_size=4).records for x in (loaded, compiled)))


@pytest.mark.thorough
def test_the_second_embedded_model_writes_the_same_texts(tmp_path: Path) -> None:
    folder = ASSETS / "tiny-llava"
    section = {**conf("model/tiny-llava"), "path": str(folder)}
    loaded = load(section, folder)  # type: ignore[arg-type]
    compiled = in_openvino(loaded, graphs_of(loaded, section), tmp_path)
    for kind, prompt in (("caption", "Provide a one-sentence caption for the provided image."), ("vqa", "{}")):
        data = load_task({**conf(f"task/shapes_{kind}"), "limit": 100})
        same(*(evaluate(x, data, Generation(prompt, 1, 32), batch_size=16).records for x in (loaded, compiled)))
