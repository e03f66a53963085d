"""`model.path=FOLDER` alone where no known model fits the folder: one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.config.grid import expand
from tests.checkpoints import fails
from tests.composing import composer
from tests.models.own_folders import LLAVA, Write, asked_here, section, write

__all__ = ["asked_here", "write"]  # fixtures


def test_two_folders_of_one_name(write: Write) -> None:
    made = composer()
    made.config((f"model.path={write(LLAVA, 'a/run')}",))
    with fails("b/run", "a/run has the name run too", "another name"):
        made.config((f"model.path={write(LLAVA, 'b/run')}",))


BAD: dict[str, tuple[Mapping[str, Any], tuple[str, ...]]] = {
    "unknown type": ({"model_type": "florence9"}, ("model_type is florence9", "llava", "blip2sweep model add")),
    "text alone": ({"model_type": "llama"}, ("model_type is llama", "blip2sweep model add")),
    "no type": ({}, ("model_type is None", "blip2sweep model add")),
    "own code": ({"model_type": "mine", "auto_map": {"AutoModel": "x.Y"}}, ("auto_map", "never run")),
    "language model": (
        {**LLAVA, "text_config": {"model_type": "mamba"}},
        ("text_config.model_type is mamba, a language model that no model of conf/model has (", "llama"),
    ),
    "of blip-2": (
        {"model_type": "blip-2", "text_config": {"model_type": "gpt2"}}, ("text_config.model_type is gpt2", "(opt, t5)"),
    ),
    "both": (
        {**LLAVA, "text_config": {"model_type": "mamba"}, "vision_config": {"model_type": "vit"}},
        ("vision_config.model_type is vit", "; config.json: text_config.model_type is mamba"),
    ),
    "two classes": (
        {"model_type": "blip", "architectures": ["BlipModel"]},
        ("architectures names BlipModel", "BlipForConditionalGeneration", "BlipForQuestionAnswering"),
    ),
    "sizes": ({**LLAVA, "text_config": {"hidden_size": "x"}}, ("transformers cannot read it",)),
}  # fmt: skip


@pytest.mark.parametrize(("config", "told"), BAD.values(), ids=BAD)
def test_a_folder_that_fits_no_model(write: Write, config: Mapping[str, Any], told: tuple[str, ...]) -> None:
    with fails("model.path=", "mine", *told):
        section(write(config))


def test_a_folder_without_config(tmp_path: Path) -> None:
    with fails(f"model.path={tmp_path}", "config.json is missing", "right: a folder with config.json"):
        section(str(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("[]")
    with fails("config.json: is a JSON list"):
        section(str(other))


def test_one_bad_folder_of_two(write: Write, tmp_path: Path) -> None:
    made = composer()
    with fails("model.path=", "nowhere", "no such folder"):
        jobs = expand([f"model.path={write(LLAVA)},{tmp_path / 'nowhere'}"], made)
        assert [made.config(job) for job in jobs]
