"""The FLOPs of image-text models, whose pictures have tiles and patches, against torch's FlopCounterMode."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from blip2sweep.models.checkpoints import inspect
from blip2sweep.models.role_params import role_params
from blip2sweep.tasks import Generation, TaskData, load_task
from tests.checkpoints import conf
from tests.flops import check, counted, told
from tests.models.image_text.made import FIRST, Made
from tests.params import quick
from tests.ragged_pictures import scenes


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    """Four pictures of different shapes."""
    folder = scenes(tmp_path_factory.mktemp("data") / "scenes", 4)
    return load_task({**conf("task/shapes_caption"), "data_dir": str(folder)})


@pytest.mark.parametrize("name", quick(FIRST, "llava-1.5-7b", "qwen2.5-vl-3b"))
def test_flops_are_those_that_torch_counts(
    name: str, small: Callable[[str], Made], task: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    m = small(name)
    flops, found = counted(monkeypatch, m.loaded, task, Generation("say it", 1, 4))
    check(flops, told(m.loaded, m.section, found), len(task.images), len(task.samples))


@pytest.mark.parametrize("name", quick(FIRST, "llava-1.5-7b", "qwen2.5-vl-3b"))
def test_roles_have_their_parameters(name: str, small: Callable[[str], Made]) -> None:
    """By the names of the files, which are not those of the modules, as by the modules'."""
    m, expected = small(name), Counter[str]()
    for path, parameter in m.loaded.model.named_parameters():
        found = re.search(r"projector|connector|merger|newline", path), re.search(r"\bvis(ion_\w+|ual)\.", path)
        expected["connector" if found[0] else "vision" if found[1] else "language"] += parameter.numel()
    weights = inspect(Path(m.section["path"]))
    told = role_params(weights.tensors, m.loaded.anatomy)
    assert told == expected
    assert sum(told.values()) == weights.params
