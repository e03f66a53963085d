"""Folders of a user, of which only config.json is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from blip2sweep.cache import disk as cache
from blip2sweep.models import own_config
from blip2sweep.models.own_folder import OwnFolders
from blip2sweep.models.written_out import answer
from blip2sweep.wire.model_section import ModelSection
from tests.composing import composer

CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 3,
}
LLAVA = {
    "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "image_token_index": 7,
    "vision_feature_layer": -2, "torch_dtype": "bfloat16", "vision_config": CLIP,
    "text_config": {"model_type": "llama", "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
                    "num_attention_heads": 3, "vocab_size": 90},
}  # fmt: skip
T5 = {"model_type": "t5", "d_model": 32, "d_ff": 48, "d_kv": 8, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 3,
      "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}  # fmt: skip
Write = Callable[..., str]


@pytest.fixture(autouse=True)
def asked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child's answer, without a child."""
    monkeypatch.setattr(own_config, "ask", lambda _, folder, question, *__: answer(folder, question["models"]))
    monkeypatch.setattr(cache, "of_user", lambda _: None)
    monkeypatch.setitem(vars(composer()), "_own", OwnFolders())  # the names of folders are those of one command


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def one(config: Mapping[str, Any], name: str = "mine", **inner: Mapping[str, Any]) -> str:
        whole = {**config, **{k: {**config[k], **v} for k, v in inner.items()}}
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(json.dumps(whole))
        return str(tmp_path / name)

    return one


def section(path: str, *more: str) -> ModelSection:
    return cast("ModelSection", composer().config((f"model.path={path}", *more))["model"])
