"""BLIP-2's graphs, run by torch, against the model's own stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from blip2sweep.apply.patch import apply
from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.errors import UserError
from blip2sweep.models.architecture import implementation
from blip2sweep.models.blip2.graphs import graphs
from blip2sweep.models.graphs import Graphs, HasGraphs
from blip2sweep.models.graphs.torch_session import TorchSession
from blip2sweep.models.load import Loaded, load
from blip2sweep.recipe import resolve_recipe
from blip2sweep.tasks import Generation, load_task
from tests.checkpoints import TINY, conf, t5_config, tiny_config, write_t5

CAPTION = Generation(None, 1, 32)
VQA = Generation("Question: {} Answer:", 1, 10)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load(tiny_config(), TINY)


@pytest.fixture(scope="module")
def own(loaded: Loaded) -> Graphs:
    return graphs(loaded.model, loaded.processor, loaded.family)


def in_torch(loaded: Loaded, own: Graphs) -> Loaded:
    images, language = own.stages({g.name: TorchSession(g) for g in own.graphs})
    return replace(loaded, images=images, language=language)


@pytest.mark.parametrize(
    ("kind", "generation"),
    [("caption", CAPTION), ("vqa", VQA), ("caption", replace(CAPTION, prompt="a photo of", min_new_tokens=9))],
)
def test_texts_and_likelihoods_are_those_of_the_model(
    loaded: Loaded, own: Graphs, kind: str, generation: Generation
) -> None:
    data = load_task({**conf(f"task/shapes_{kind}"), "limit": 40})
    expected, found = (
        evaluate(x, data, generation, nll_references=2, batch_size=16).records for x in (loaded, in_torch(loaded, own))
    )
    assert [(r["id"], r["text"], r["tokens"], r["nll_tokens"]) for r in found] == [
        (r["id"], r["text"], r["tokens"], r["nll_tokens"]) for r in expected
    ]
    assert [r["nll_sum"] for r in found] == pytest.approx([r["nll_sum"] for r in expected], rel=1e-5, abs=1e-4)


def test_a_dropped_block_has_no_states(loaded: Loaded) -> None:
    data = load_task({**conf("task/shapes_caption"), "limit": 10})
    drop = {"part": "none", "blocks": "all", "layers": "all", "quant": {}, "drop_blocks": "llm:2"}
    with apply(loaded, resolve_recipe(drop, loaded.anatomy)):
        short = graphs(loaded.model, loaded.processor, loaded.family)
        expected, found = (evaluate(x, data, CAPTION, batch_size=4).records for x in (loaded, in_torch(loaded, short)))
    assert [r["text"] for r in found] == [r["text"] for r in expected]
    assert len(short.graphs[-1].states) == 2 * (loaded.model.config.text_config.num_hidden_layers - 1)


def test_the_layers_of_a_graph_are_found_by_their_paths_in_the_model(loaded: Loaded, own: Graphs) -> None:
    assert isinstance(implementation(tiny_config()), HasGraphs)
    found: dict[str, nn.Module] = {}
    for graph in own.graphs:
        for inside, path in graph.paths.items():
            found |= {f"{path}.{name}": m for name, m in graph.module.get_submodule(inside).named_modules()}
    for part in loaded.anatomy.parts.values():
        for linear in part.linears:
            assert found[linear.path] is loaded.model.get_submodule(linear.path)


def test_several_beams_and_other_families_are_refused(loaded: Loaded, own: Graphs, tmp_path: Path) -> None:
    data = load_task({**conf("task/shapes_caption"), "limit": 2})
    with pytest.raises(RuntimeError, match="graphs write with one beam, not 3"):
        evaluate(in_torch(loaded, own), data, replace(CAPTION, num_beams=3))
    t5 = load(t5_config(), write_t5(tmp_path))
    with pytest.raises(UserError, match="no graphs of BLIP-2 with t5; right: with opt"):
        graphs(t5.model, t5.processor, t5.family)
