"""The FLOPs of every architecture of BLIP's family against torch's FlopCounterMode."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from blip2sweep.apply.patch import apply
from blip2sweep.models.load import Loaded, load
from blip2sweep.recipe import resolve_recipe
from blip2sweep.tasks import Generation, coco, load_task
from blip2sweep.tasks.task import KINDS
from tests.checkpoints import TINY, conf, t5_config, tiny_config, write_t5
from tests.flops import check, counted, told
from tests.miniatures import (
    blip_config,
    instructblip_config,
    retrieval_config,
    write_blip,
    write_instructblip,
    write_retrieval,
)
from tests.params import quick

Write = Callable[[Path], Path]
MODELS: dict[str, tuple[Callable[[], dict[str, Any]], Write]] = {
    "opt": (tiny_config, lambda folder: TINY),
    "t5": (t5_config, write_t5),
    "instructblip-llama": (partial(instructblip_config, "llama"), partial(write_instructblip, family="llama")),
    "instructblip-t5": (partial(instructblip_config, "t5"), partial(write_instructblip, family="t5")),
    "blip-caption": (
        partial(blip_config, "blip-image-captioning-base"), partial(write_blip, name="blip-image-captioning-base")
    ),
    "blip-vqa": (partial(blip_config, "blip-vqa-base"), partial(write_blip, name="blip-vqa-base")),
}  # fmt: skip


Small = Callable[[str], tuple[dict[str, Any], Loaded]]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The section and the model of a name, loaded once."""

    @functools.cache
    def one(name: str) -> tuple[dict[str, Any], Loaded]:
        section, write = MODELS[name]
        return section(), load(section(), write(tmp_path_factory.mktemp(name) / "weights"))

    return one


@pytest.mark.parametrize("name", quick(MODELS))
def test_flops_are_those_that_torch_counts(name: str, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    section, loaded = small(name)
    kind = "caption" if name == "blip-caption" else "vqa"
    task = load_task({**conf(f"task/shapes_{kind}"), "limit": 3})
    flops, found = counted(monkeypatch, loaded, task, Generation("Question: {}" if kind == "vqa" else "a", 1, 5))
    columns = told(loaded, section, found)
    check(flops, columns, len(task.images), 3)
    assert columns["gflops"] == pytest.approx(sum(v for k, v in columns.items() if k.startswith("gflops_")))


def test_flops_of_retrieval_are_those_that_torch_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "match", "tests.toy.matching")
    monkeypatch.setattr(coco, "KINDS", (*coco.KINDS, "match"))
    loaded = load(retrieval_config(), write_retrieval(tmp_path / "weights"))
    task = load_task({**conf("task/shapes_caption"), "limit": 4, "kind": "match", "main_metric": "toy_recall"})
    for k in (0, 2):
        flops, found = counted(monkeypatch, loaded, replace(task, settings={"k": k}), Generation(None, 1, 1))
        columns = told(loaded, retrieval_config(), found)
        check(flops, columns, 4, 4)
        assert "tokens_written" not in columns


@pytest.mark.parametrize("name", ["opt", "t5", "blip-vqa"])
def test_flops_of_choices_are_those_that_torch_counts(name: str, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    section, loaded = small(name)
    task = load_task({**conf("task/shapes_vqa"), "limit": 2})
    chosen = tuple(replace(s, choices=("red", "a big blue square")) for s in task.samples)
    flops, found = counted(monkeypatch, loaded, replace(task, kind="choice", samples=chosen), Generation("{}", 1, 5))
    columns = told(loaded, section, found)
    read = flops["language"] + flops.pop("likelihood")
    check(flops + Counter(language=read - flops["language"]), columns, len(task.images), 2)
    assert "tokens_written" not in columns


DROPPED = {"opt": "vit:1+qformer:0-1+llm:3-5", "t5": "qformer:5+llm:1+3", "blip-vqa": "vit:0+llm:1+5"}


@pytest.mark.parametrize("name", DROPPED)
def test_flops_of_what_is_left_are_those_that_torch_counts(
    name: str, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    section, loaded = small(name)
    recipe = resolve_recipe({"drop_blocks": DROPPED[name], "part": "none"}, loaded.anatomy)
    task = load_task({**conf("task/shapes_vqa"), "limit": 2})
    with apply(loaded, recipe):
        flops, found = counted(monkeypatch, loaded, task, Generation("{}", 1, 4))
    check(flops, told(loaded, section, found, recipe), len(task.images), 2)
