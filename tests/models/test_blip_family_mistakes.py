"""Checkpoints of BLIP's family that are not what their model config says: all mistakes at once, before anything runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.models.check import mistakes
from blip2sweep.models.checkpoints import inspect
from tests.checkpoints import edit_section
from tests.miniatures import (
    blip_config,
    instructblip_config,
    retrieval_config,
    write_blip,
    write_instructblip,
    write_retrieval,
)


def found(folder: Path, model: dict[str, Any]) -> str:
    return "; ".join(mistakes(inspect(folder), model))


def test_instructblip_without_its_second_tokenizer(tmp_path: Path) -> None:
    folder, model = write_instructblip(tmp_path / "m", "llama"), instructblip_config("llama")
    assert not found(folder, model)
    tokenizer = folder / "qformer_tokenizer" / "tokenizer.json"
    words = json.loads(tokenizer.read_text())
    words["model"]["vocab"]["one-too-many"] = 99
    tokenizer.write_text(json.dumps(words))
    assert "qformer_tokenizer: has tokens up to 99, qformer_config.vocab_size is 31" in found(folder, model)
    shutil.rmtree(folder / "qformer_tokenizer")
    assert "qformer_tokenizer: the tokenizer is missing" in found(folder, model)
    (folder / "processor_config.json").unlink()
    assert "qformer_tokenizer: the tokenizer is missing" in found(folder, model)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_instructblip_whose_texts_nothing_ends(tmp_path: Path, family: str) -> None:
    folder = write_instructblip(tmp_path / "m", family)
    edit_section(folder / "config.json", "text_config", eos_token_id=None)
    assert "text_config.eos_token_id is null, so nothing would end" in found(folder, instructblip_config(family))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: edit_section(path, "text_config", sep_token_id=9), "sep_token_id is 9, the tokenizer's is 3"),
        (lambda path: edit_section(path, "text_config", sep_token_id=None), "not a token that can end a text"),
        (lambda path: edit_section(path, "vision_config", image_size=48), "vision_config.image_size is 48 in config.json"),
    ],
)  # fmt: skip
def test_blip_whose_config_is_another(tmp_path: Path, change: Callable[[Path], None], said: str) -> None:
    folder = write_blip(tmp_path / "m", "blip-vqa-base")
    change(folder / "config.json")
    assert said in found(folder, blip_config("blip-vqa-base"))


def test_blip_of_the_other_kind(tmp_path: Path) -> None:
    folder = write_blip(tmp_path / "m", "blip-vqa-base")
    said = found(folder, blip_config("blip-image-captioning-base"))
    assert "tensors that the model does not have: text_encoder." in said


def test_retrieval_whose_qformer_reads_no_text(tmp_path: Path) -> None:
    folder, model = write_retrieval(tmp_path / "m"), retrieval_config()
    assert not found(folder, model)
    edit_section(folder / "config.json", "qformer_config", use_qformer_text_input=False)
    assert "this Q-Former reads no text" in found(folder, model)
