"""Small checkpoints of image-text models: each is written and loaded once."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch

from blip2sweep.models.load import load
from tests.image_text import write
from tests.models.image_text.made import Made, made


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="package")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """The small checkpoint of a YAML by name."""

    @functools.cache
    def one(name: str) -> Made:
        folder = tmp_path_factory.mktemp(name)
        section = write(name, folder)
        return made(name, section, load(section, folder))

    return one
