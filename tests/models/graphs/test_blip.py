"""BLIP-1's graphs, run by torch, against the model's own stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2sweep.apply.patch import apply
from blip2sweep.models.load import Loaded, load
from blip2sweep.recipe import resolve_recipe
from blip2sweep.tasks import Generation, load_task
from tests.checkpoints import conf
from tests.miniatures import blip_config, write_blip
from tests.models.graphs.in_torch import graphs_of, layers_are_found, same_texts_and_likelihoods

CAPTIONS, ANSWERS = "blip-image-captioning-base", "blip-vqa-base"
QUESTIONS = Generation("question {}", 1, 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blip")


@pytest.fixture(scope="module", params=(CAPTIONS, ANSWERS))
def loaded(request: pytest.FixtureRequest, folder: Path) -> Loaded:
    return load(blip_config(request.param), write_blip(folder / request.param, request.param))


def name(loaded: Loaded) -> str:
    return ANSWERS if hasattr(loaded.model, "text_encoder") else CAPTIONS


def test_texts_and_likelihoods_are_those_of_the_model(loaded: Loaded) -> None:
    own = graphs_of(loaded, blip_config(name(loaded)))
    same_texts_and_likelihoods(loaded, own, load_task({**conf("task/shapes_vqa"), "limit": 24}), QUESTIONS)


def test_captions_without_a_prompt(loaded: Loaded) -> None:
    own = graphs_of(loaded, blip_config(name(loaded)))
    data = load_task({**conf("task/shapes_caption"), "limit": 10})
    same_texts_and_likelihoods(loaded, own, data, Generation("a picture of", 1, 8, 3))


def test_the_layers_of_a_graph_are_found_by_their_paths_in_the_model(loaded: Loaded) -> None:
    layers_are_found(loaded, graphs_of(loaded, blip_config(name(loaded))))


def test_a_dropped_block_has_no_states(loaded: Loaded) -> None:
    blocks = "llm:0+4" if name(loaded) == ANSWERS else "llm:1"
    drop = {"part": "none", "blocks": "all", "layers": "all", "quant": {}, "drop_blocks": blocks}
    with apply(loaded, resolve_recipe(drop, loaded.anatomy)):
        own = graphs_of(loaded, blip_config(name(loaded)))
        assert len(own.graphs[-1].states) == 4
        same_texts_and_likelihoods(loaded, own, load_task({**conf("task/shapes_vqa"), "limit": 8}), QUESTIONS)
