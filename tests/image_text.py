"""Small random checkpoints of the image-text-to-text models, in the layout of Hugging Face: sharded, with processors.

The anatomy comes from a model's own YAML; only the sizes of its `config` are small. Every weight, gate and scale is
drawn at random. Tokens are bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers as tf
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, ProcessorMixin

from blip2sweep.models.architecture import implementation
from blip2sweep.models.image_text.processor import for_pictures
from tests.checkpoints import conf

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 2048,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
QWEN_VISION = {
    "depth": 4, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 64, "patch_size": 8,
    "spatial_merge_size": 2, "temporal_patch_size": 2,
}  # fmt: skip
AXES = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}}
CHAT = (
    "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}{% if c['type'] == 'image' %}IMAGE"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}\n{% endfor %}assistant:"
)


class Small(NamedTuple):
    """A small checkpoint of a model. config: fields over those of the YAML, with ids of the tokens in `special` by name.

    special: the image's token first. processor: made of a tokenizer. placed: what stands in the chat template for a
    picture; the image's token by default.
    """

    config: Mapping[str, Any]
    special: tuple[str, ...]
    processor: Callable[[PreTrainedTokenizerFast], ProcessorMixin]
    attributes: Mapping[str, str] = {}
    placed: str | None = None


def tokenizer(special: tuple[str, ...], attributes: Mapping[str, str]) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes. Special tokens come first: pad 0, bos 1, eos 2, then `special`."""
    names = [PAD, BOS, EOS, *special]
    vocabulary = {x: i for i, x in enumerate([*names, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    rules = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    rules.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in names])
    return PreTrainedTokenizerFast(
        tokenizer_object=rules, pad_token=PAD, bos_token=BOS, eos_token=EOS, padding_side="left",
        extra_special_tokens=dict(attributes),
    )  # fmt: skip


def _square(size: int) -> dict[str, int]:
    return {"height": size, "width": size}


def _clip(t: PreTrainedTokenizerFast) -> ProcessorMixin:
    images = tf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=_square(32))
    return tf.LlavaProcessor(
        images, t, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )


def _qwen2_5(t: PreTrainedTokenizerFast) -> ProcessorMixin:
    images = tf.Qwen2VLImageProcessorPil(patch_size=8, min_pixels=16 * 16, max_pixels=64 * 64)
    return for_pictures(tf.Qwen2_5_VLProcessor)(images, t, None)


def _qwen3(t: PreTrainedTokenizerFast) -> ProcessorMixin:
    images = tf.Qwen2VLImageProcessorPil(patch_size=8, min_pixels=16 * 16, max_pixels=64 * 64)
    return for_pictures(tf.Qwen3VLProcessor)(images, t, None)


QWEN = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
QWEN_IDS = {
    "image_token_id": 3, "video_token_id": 4, "vision_start_token_id": 5, "vision_end_token_id": 6,
    "tie_word_embeddings": False,
}  # fmt: skip
QWEN_NAMES = {
    "image_token": QWEN[0], "video_token": QWEN[1], "vision_start_token": QWEN[2], "vision_end_token": QWEN[3]
}  # fmt: skip
SMALL: dict[str, Small] = {
    "llava-1.5-7b": Small(
        {"image_token_index": 3, "vision_config": VISION, "text_config": TEXT},
        ("<image>",), _clip, {"image_token": "<image>"},
    ),
    "qwen2.5-vl-3b": Small(
        {**QWEN_IDS, "vision_config": {**QWEN_VISION, "window_size": 32, "fullatt_block_indexes": [1, 3]},
         "text_config": {**TEXT, **AXES, "tie_word_embeddings": False}},
        QWEN, _qwen2_5, QWEN_NAMES, "".join((QWEN[2], QWEN[0], QWEN[3])),
    ),
    "qwen3-vl-2b": Small(
        {**QWEN_IDS, "vision_config": {**QWEN_VISION, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1, 2]},
         "text_config": {**TEXT, **AXES, "tie_word_embeddings": False}},
        QWEN, _qwen3, QWEN_NAMES, "".join((QWEN[2], QWEN[0], QWEN[3])),
    ),
}  # fmt: skip


def small_config(name: str) -> dict[str, Any]:
    """The composed `model` section of a model with the sizes of its small checkpoint, in float32."""
    section, small = conf(f"model/{name}"), SMALL[name]
    vocabulary = len(tokenizer(small.special, {}).get_vocab())
    config = _merged(_merged(section["config"], small.config), {"text_config": {"vocab_size": vocabulary}})
    return {**section, "name": f"small-{name}", "dtype": "float32", "hub_id": None, "config": config}


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {k: _merged(base[k], v) if isinstance(v, Mapping) and isinstance(base.get(k), Mapping) else v
            for k, v in over.items()}  # fmt: skip
    return {**base, **both}


def write(name: str, folder: Path) -> dict[str, Any]:
    """A random checkpoint of a model in a folder. Returns its composed `model` section, with the path."""
    section, small = small_config(name), SMALL[name]
    own = implementation(section)
    torch.manual_seed(0)
    model = own.model_class(own.config_class(**section["config"])).eval()
    for parameter in model.parameters():
        spread = 0.12 if parameter.dim() > 1 else 0.3
        parameter.data.normal_(float(parameter.dim() == 1), spread)  # norms and gates around 1
    model.generation_config.update(eos_token_id=2, pad_token_id=0, bos_token_id=1)
    model.save_pretrained(folder, max_shard_size="150KB")
    processor = small.processor(tokenizer(small.special, small.attributes))
    processor.chat_template = CHAT.replace("IMAGE", small.placed or small.special[0])
    save(processor, folder)
    return {**section, "path": str(folder)}


def save(processor: ProcessorMixin, folder: Path) -> None:
    """As `save_pretrained`, which needs torchvision where the processor is also for videos."""
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    own = {k: v for k, v in processor.to_dict().items() if k not in processor.get_attributes()}
    (folder / "processor_config.json").write_text(json.dumps(own))
    (folder / "chat_template.jinja").write_text(processor.chat_template)


def pictures(n: int = 3) -> list[Image.Image]:
    """Pictures of different shapes."""
    rng = np.random.default_rng(0)
    shapes = [(48, 64), (64, 43), (40, 40), (33, 80)]
    return [Image.fromarray(rng.integers(0, 255, (*shapes[i % 4], 3), dtype=np.uint8)) for i in range(n)]
