"""A YAML proposed from a folder: the one of conf/model where there is one, right ones for other models, and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import transformers as tf
from torch import nn
from transformers.models.llava import modeling_llava

from blip2sweep.models.anatomy import Anatomy, anatomy
from blip2sweep.models.config_file import read_config
from blip2sweep.models.discovery import propose
from blip2sweep.models.shipped import model_config
from blip2sweep.wire.model_section import ModelSection
from tests import image_text
from tests.checkpoints import fails
from tests.image_text import TEXT, VISION
from tests.models.discovery.made import only_config, write

KNOWN = ("llava-1.5-7b", "paligemma-3b-224", "gemma-3-4b", "qwen2.5-vl-3b", "qwen3-vl-2b", "smolvlm-256m")


def proposed(folder: Path) -> ModelSection:
    return cast("ModelSection", propose(folder))


def stacks(shape: Anatomy) -> set[tuple[str, str, int, int, bool]]:
    return {(p.role, s.path, s.n, s.unread, s.whole) for p in shape.parts.values() for s in p.stacks}


def layers(shape: Anatomy, unread: bool = False) -> set[tuple[str, str, int, int, bool]]:
    all_of = [x for p in shape.parts.values() for x in (p.unread if unread else p.linears)]
    return {(x.path, x.kind, x.out_features, x.in_features, x.bias) for x in all_of}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_model_is_what_conf_says(name: str, tmp_path: Path) -> None:
    section = image_text.write(name, tmp_path / "mine")
    found = proposed(tmp_path / "mine")
    right, own = anatomy(cast("ModelSection", section)), anatomy(found)
    assert stacks(own) == stacks(right)
    assert layers(own) == layers(right)
    assert layers(own, unread=True) == layers(right, unread=True)
    for entry in ("features", "token_types", "image_token"):  # the first position moves nothing where positions turn
        assert (found.get("adapter") or {}).get(entry) == (section.get("adapter") or {}).get(entry)
    assert found["config"]["model_type"] == section["config"]["model_type"]
    assert found.get("prompts") == model_config("llava-1.5-7b").get("prompts")  # those of conf/model/_prompts.yaml


# (blocks of the tower that are read, all linears, adapter, modules of the connector)
OTHERS = {
    "aya_vision": (4, 4 * 6 + 2 + 3 * 7, {"features": "stacked"}, ["model.multi_modal_projector"]),
    "vipllava": (11, 11 * 6 + 2 + 3 * 7, {"features": "stacked"}, ["model.multi_modal_projector"]),
    "qwen2_vl": (5, 5 * 4 + 2 + 3 * 7, {}, ["model.visual.merger"]),
    "glm4v": (4, 4 * 5 + 4 + 3 * 6, {}, ["model.visual.merger"]),
}


@pytest.mark.parametrize(("name", "right"), OTHERS.items(), ids=OTHERS)
def test_a_model_that_conf_does_not_have(name: str, right: tuple[int, int, Any, list[str]], tmp_path: Path) -> None:
    found = proposed(write(name, tmp_path / name))
    shape = anatomy(found)
    (vision,), (connector,) = shape.role("vision"), shape.role("connector")
    linears = sum(len(p.linears) for p in shape.parts.values())
    adapter = {k: v for k, v in (found["adapter"] or {}).items() if k != "image_token"}
    assert (vision.n_blocks, linears, adapter, [s.path for s in connector.stacks]) == right
    assert found["name"] == name
    assert not read_config(tmp_path / name, found)[1]


def test_sizes_are_fields_of_the_config(tmp_path: Path) -> None:
    parts = proposed(write("aya_vision", tmp_path / "mine"))["parts"]
    attention = parts["language"]["layers"]["attention"]
    heads = "text_config.num_key_value_heads*text_config.head_dim"
    assert attention["self_attn.k_proj"]["shape"] == [heads, "text_config.hidden_size"]
    assert parts["connector"]["layers"]["mlp"]["linear_1"]["shape"][0] == "alignment_intermediate_size"


# ---- refusals


def _moe() -> tf.PreTrainedConfig:
    vision = {"depth": 4, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 64}
    return tf.Qwen3VLMoeConfig(
        text_config={**TEXT, "moe_intermediate_size": 64, "num_experts": 16}, vision_config=vision
    )


T5 = {"model_type": "t5", "d_model": 32, "d_kv": 8, "num_heads": 4, "num_layers": 2}
REFUSED: dict[str, tuple[Any, tuple[str, ...]]] = {
    "no config": (None, ("config.json is missing",)),
    "own code": ({"model_type": "mine", "auto_map": {"AutoModel": "x.Y"}}, ("no model_type mine", "auto_map", "never run")),
    "text alone": ({"model_type": "llama"}, ("llama is no image-text-to-text model",)),
    "videos": ({"model_type": "instructblipvideo"}, ("takes only videos",)),
    "encoder": ({"model_type": "blip-2", "text_config": T5}, ("language model (t5) has an encoder",)),
    "blip-1": ({"model_type": "blip"}, ("BlipForConditionalGeneration has no get_image_features",)),
    "no features": ({"model_type": "fuyu"}, ("FuyuForCausalLM has no get_image_features",)),
    "no interface": ({"model_type": "florence2"}, ("takes no features of pictures (mm_encoder_outputs)",)),
    "quantized": (
        {"model_type": "llava", "quantization_config": {"quant_method": "awq"}}, ("already quantized (config.json says quantization_config: awq)",)
    ),
    "experts": (_moe, ("% of the weights in its blocks are in linear layers (--allow-partial",)),
    "two classes": (
        lambda: tf.Lfm2VlConfig(
            vision_config={"model_type": "siglip2_vision_model", **VISION}, text_config={"model_type": "lfm2", **TEXT,
            "layer_types": ["conv", "full_attention", "conv"]},
        ),
        ("model.language_model.layers: only some of its blocks have conv.in_proj",),
    ),
    "no processor": (
        lambda: tf.LlavaConfig(vision_config={"model_type": "clip_vision_model", **VISION}, text_config=TEXT),
        ("tokenizer", "image processor cannot be read"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("config", "told"), REFUSED.values(), ids=REFUSED)
def test_what_stays_unclear_is_refused(config: Any, told: tuple[str, ...], tmp_path: Path) -> None:
    made: Mapping[str, Any] | tf.PreTrainedConfig | None = config() if callable(config) else config
    if made is None:
        (tmp_path / "mine").mkdir()
    else:
        only_config(tmp_path / "mine", made)  # type: ignore[arg-type]
    with fails(str(tmp_path / "mine"), "no YAML can be proposed", *told, "right: "):
        propose(tmp_path / "mine")


def test_a_connector_that_is_one_linear_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        modeling_llava, "LlavaMultiModalProjector",
        lambda config: nn.Linear(config.vision_config.hidden_size, config.text_config.hidden_size),
    )  # fmt: skip
    image_text.write("llava-1.5-7b", tmp_path / "mine")
    with fails(
        "no YAML can be proposed", "model.multi_modal_projector is a bare nn.Linear, of which no part can be made"
    ):
        propose(tmp_path / "mine")


def test_no_folder(tmp_path: Path) -> None:
    with fails("nowhere", "no such folder"):
        propose(tmp_path / "nowhere")
