"""Graphs of image-text-to-text models and of InstructBLIP, run by torch, against the models' own stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2sweep.models.architecture import no_graphs
from blip2sweep.models.image_text import IN_GRAPHS
from blip2sweep.models.image_text.graphs import SEEING
from blip2sweep.models.load import load
from blip2sweep.models.shipped import model_config
from blip2sweep.tasks import Generation, load_task
from tests.checkpoints import conf
from tests.models.graphs.in_torch import graphs_of, layers_are_found, same_texts_and_likelihoods
from tests.params import quick
from tests.small_models import small

GENERATION = Generation("Question: {} Answer:", 1, 6)
QUICK = ("llava-1.5-7b", "gemma-3-4b", "instructblip-vicuna-7b")
THOROUGH = (
    "llava-v1.6-mistral-7b",
    "llava-onevision-0.5b",
    "smolvlm-256m",
    "paligemma-3b-224",
    "internvl3-1b",
    "idefics3-8b",
)


@pytest.mark.parametrize("name", quick([*QUICK, *THOROUGH], *QUICK))
def test_texts_and_likelihoods_are_those_of_the_model(name: str, tmp_path: Path) -> None:
    section, write = small(name)
    write(tmp_path)
    loaded = load(section, tmp_path)
    own = graphs_of(loaded, section)
    same_texts_and_likelihoods(loaded, own, load_task({**conf("task/shapes_vqa"), "limit": 10}), GENERATION)
    layers_are_found(loaded, own)


@pytest.mark.parametrize("name", ["qwen2.5-vl-3b", "qwen3-vl-2b", "instructblip-flan-t5-xl", "blip2-itm-vit-g"])
def test_models_without_graphs_are_refused_in_one_line(name: str) -> None:
    why = no_graphs(model_config(name))
    assert why is not None
    assert why.startswith("no graphs of ")
    assert why.endswith("backend=torch")
    assert "\n" not in why


def test_planning_knows_the_towers_that_can_be_graphs() -> None:
    assert SEEING.keys() == IN_GRAPHS
    assert all(no_graphs(model_config(name)) is None for name in ("tiny-llava", "blip-vqa-base", *QUICK, *THOROUGH))


def test_another_decoder_is_refused_by_its_type() -> None:
    section = {**model_config("tiny-llava")}
    section["config"] = {**section["config"], "text_config": {"model_type": "mamba"}}
    assert no_graphs(section) == (
        "no graphs of a decoder of type mamba; right: one of gemma, gemma3_text, llama, mistral, qwen2, or backend=torch"
    )
