"""Folders of models that conf/model does not have: a config of small sizes, a processor, and no weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import transformers as tf
from transformers import PreTrainedConfig, PreTrainedTokenizerFast, ProcessorMixin

from blip2sweep.models.discovery.proof import random_model
from blip2sweep.models.image_text.processor import for_pictures
from tests.image_text import (
    AXES,
    CHAT,
    IMAGE,
    QWEN,
    QWEN_IDS,
    QWEN_NAMES,
    QWEN_VISION,
    TEXT,
    VISION,
    Small,
    save,
    tokenizer,
)

SIGLIP = {"model_type": "siglip_vision_model", "vision_use_head": False, **VISION}
CLIP = {"model_type": "clip_vision_model", **VISION, "num_hidden_layers": 12}
SQUARE = {"height": 32, "width": 32}


class Unknown(NamedTuple):
    """config: its class with its fields. small: the tokenizer's special tokens and the processor."""

    config: Callable[[], PreTrainedConfig]
    small: Small


def _got(t: PreTrainedTokenizerFast) -> ProcessorMixin:
    images = tf.GotOcr2ImageProcessorPil(size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=4)
    return tf.AyaVisionProcessor(images, t, patch_size=8, img_size=32, downsample_factor=2)


def _vip(t: PreTrainedTokenizerFast) -> ProcessorMixin:
    images = tf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=SQUARE)
    return tf.LlavaProcessor(
        images, t, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )


def _qwen2(t: PreTrainedTokenizerFast) -> ProcessorMixin:
    images = tf.Qwen2VLImageProcessorPil(patch_size=8, min_pixels=16 * 16, max_pixels=64 * 64)
    return for_pictures(tf.Qwen2VLProcessor)(images, t, None)


def _glm(t: PreTrainedTokenizerFast) -> ProcessorMixin:
    images = tf.Glm4vImageProcessorPil(patch_size=8, size={"shortest_edge": 256, "longest_edge": 4096})
    return for_pictures(tf.Glm4vProcessor)(images, t, None)


def _qwen3(t: PreTrainedTokenizerFast) -> ProcessorMixin:
    images = tf.Qwen2VLImageProcessorPil(patch_size=8, min_pixels=16 * 16, max_pixels=64 * 64)
    return for_pictures(tf.Qwen3VLProcessor)(images, t, None)


GLM = ("<|image|>", "<|video|>", "<|begin_of_image|>", "<|end_of_image|>")
AYA = ("<|IMG_PATCH|>", "<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_LINE_BREAK|>", "TILE", "TILE_GLOBAL")
V = {"vocab_size": 280}
UNKNOWN: dict[str, Unknown] = {
    "aya_vision": Unknown(
        lambda: tf.AyaVisionConfig(
            vision_config=SIGLIP, text_config={"model_type": "cohere2", **TEXT, **V}, image_token_index=3, downsample_factor=2,
            vision_feature_layer=-1, alignment_intermediate_size=80,
        ),
        Small({}, AYA, _got, IMAGE, "<image>"),
    ),
    "vipllava": Unknown(
        lambda: tf.VipLlavaConfig(
            vision_config=CLIP, text_config={"model_type": "llama", **TEXT, **V}, image_token_index=3,
            vision_feature_layers=[-2, -5, -8, -11, 6],
        ),
        Small({}, ("<image>",), _vip, IMAGE),
    ),
    "qwen2_vl": Unknown(
        lambda: tf.Qwen2VLConfig(
            **QWEN_IDS, text_config={**TEXT, **AXES, **V},
            vision_config={"depth": 5, "embed_dim": 32, "hidden_size": 64, "num_heads": 4, "patch_size": 8, "mlp_ratio": 2},
        ),
        Small({}, QWEN, _qwen2, QWEN_NAMES, "".join((QWEN[2], QWEN[0], QWEN[3]))),
    ),
    "glm4v": Unknown(
        lambda: tf.Glm4vConfig(
            image_token_id=3, video_token_id=4, image_start_token_id=5, image_end_token_id=6,
            text_config={**TEXT, **V, "rope_parameters": {**AXES["rope_parameters"], "partial_rotary_factor": 0.5,
                                                          "mrope_section": [2, 1, 1]}},
            vision_config={**QWEN_VISION, "image_size": 32},
        ),
        Small({}, GLM, _glm, {"image_token": GLM[0], "video_token": GLM[1]}, "".join((GLM[2], GLM[0], GLM[3]))),
    ),
    "qwen3_vl_moe": Unknown(  # only with --allow-partial
        lambda: tf.Qwen3VLMoeConfig(
            **QWEN_IDS, text_config={**TEXT, **AXES, **V, "moe_intermediate_size": 64, "num_experts": 16},
            vision_config={**QWEN_VISION, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]},
        ),
        Small({}, QWEN, _qwen3, QWEN_NAMES, "".join((QWEN[2], QWEN[0], QWEN[3]))),
    ),
}  # fmt: skip


def write(name: str, folder: Path) -> Path:
    """A folder with config.json and the files of the processor."""
    folder.mkdir(parents=True)
    config, small = UNKNOWN[name]
    config().save_pretrained(folder)
    made = small.processor(tokenizer(small))
    made.chat_template = CHAT.replace("IMAGE", small.placed or small.special[0])
    save(made, folder)
    return folder


def write_whole(name: str, folder: Path) -> Path:
    """The folder with random weights."""
    write(name, folder)
    config = UNKNOWN[name].config()
    random_model(tf.AutoModelForImageTextToText._model_mapping[type(config)], config).save_pretrained(folder)
    return folder


def only_config(folder: Path, config: PreTrainedConfig | dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    if isinstance(config, dict):
        (folder / "config.json").write_text(json.dumps(config))
    else:
        config.save_pretrained(folder)
    return folder
