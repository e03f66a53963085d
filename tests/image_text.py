"""Small random checkpoints of the image-text-to-text models, in the layout of Hugging Face: sharded, with processors.

The anatomy comes from a model's own YAML; only the sizes of its `config` are small. Every weight, gate and scale is
drawn at random. Tokens are bytes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers as tf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, ProcessorMixin

from blip2sweep.models.architecture import implementation
from blip2sweep.models.image_text.processor import for_pictures
from tests.checkpoints import conf

PAD, EOS = "<pad>", "</s>"
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
    """A small checkpoint of a model. config: fields over those of the YAML, with the ids of the tokens in `special`.

    special: the image's token first; its id is 3. processor: made of a tokenizer. placed: what stands in the chat
    template for a picture; the image's token by default. bos: whether the tokenizer sets BOS before a text. chat: the
    chat template, with IMAGE.
    """

    config: Mapping[str, Any]
    special: tuple[str, ...]
    processor: Callable[[PreTrainedTokenizerFast], ProcessorMixin]
    attributes: Mapping[str, str] = {}
    placed: str | None = None
    bos: bool = False
    bos_token: str = "<s>"
    chat: str = CHAT


def tokenizer(small: Small) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes. Special tokens come first: pad 0, bos 1, eos 2, then `special`."""
    names = [PAD, small.bos_token, EOS, *small.special]
    vocabulary = {x: i for i, x in enumerate([*names, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    rules = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    rules.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in names])
    if small.bos:
        before = [(small.bos_token, 1)]
        rules.post_processor = TemplateProcessing(single=f"{small.bos_token} $A", special_tokens=before)
    return PreTrainedTokenizerFast(
        tokenizer_object=rules, pad_token=PAD, bos_token=small.bos_token, eos_token=EOS, padding_side="left",
        extra_special_tokens=dict(small.attributes),
    )  # fmt: skip


def _square(size: int) -> dict[str, int]:
    return {"height": size, "width": size}


def _llava(t: PreTrainedTokenizerFast) -> ProcessorMixin:
    images = tf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=_square(32))
    return tf.LlavaProcessor(
        images, t, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )


def _llava_next(t: PreTrainedTokenizerFast) -> ProcessorMixin:
    images = tf.LlavaNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_size=_square(32), image_grid_pinpoints=PINPOINTS
    )
    return tf.LlavaNextProcessor(
        images, t, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )


def _onevision(t: PreTrainedTokenizerFast) -> ProcessorMixin:
    images = tf.LlavaOnevisionImageProcessorPil(size=_square(32), image_grid_pinpoints=PINPOINTS)
    return for_pictures(tf.LlavaOnevisionProcessor)(
        images, t, None, num_image_tokens=16, vision_feature_select_strategy="full", vision_aspect_ratio="anyres_max_9"
    )


def _idefics3(split: bool) -> Callable[[PreTrainedTokenizerFast], ProcessorMixin]:
    def made(t: PreTrainedTokenizerFast) -> ProcessorMixin:
        images = tf.Idefics3ImageProcessorPil(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_image_splitting=split
        )
        return tf.Idefics3Processor(images, t, image_seq_len=4)

    return made


def _paligemma(t: PreTrainedTokenizerFast) -> ProcessorMixin:
    images = tf.SiglipImageProcessorPil(size=_square(32))
    images.image_seq_length = 16
    return tf.PaliGemmaProcessor(images, t)


def _gemma3(t: PreTrainedTokenizerFast) -> ProcessorMixin:
    return tf.Gemma3Processor(tf.Gemma3ImageProcessorPil(size=_square(32)), t, image_seq_length=4)


def _internvl(t: PreTrainedTokenizerFast) -> ProcessorMixin:
    images = tf.GotOcr2ImageProcessorPil(size=_square(32), crop_to_patches=True, min_patches=1, max_patches=4)
    return for_pictures(tf.InternVLProcessor)(images, t, None, image_seq_length=4)


def _qwen(cls: type[ProcessorMixin]) -> Callable[[PreTrainedTokenizerFast], ProcessorMixin]:
    images = tf.Qwen2VLImageProcessorPil(patch_size=8, min_pixels=16 * 16, max_pixels=64 * 64)
    return lambda t: for_pictures(cls)(images, t, None)


PINPOINTS = [[32, 64], [64, 32], [64, 64]]
IMAGE = {"image_token": "<image>"}
ALL_HEADS = {**TEXT, "num_key_value_heads": 4}
QWEN = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
QWEN_IDS = {
    "image_token_id": 3, "video_token_id": 4, "vision_start_token_id": 5, "vision_end_token_id": 6,
    "tie_word_embeddings": False,
}  # fmt: skip
QWEN_NAMES = {
    "image_token": QWEN[0], "video_token": QWEN[1], "vision_start_token": QWEN[2], "vision_end_token": QWEN[3]
}  # fmt: skip
LLAVA = Small(
    {"image_token_index": 3, "vision_config": VISION, "text_config": ALL_HEADS}, ("<image>",), _llava, IMAGE, bos=True
)
IDEFICS3 = Small(
    {"image_token_id": 3, "pad_token_id": 0, "scale_factor": 2, "vision_config": VISION, "text_config": TEXT},
    ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"), _idefics3(split=True), IMAGE,
)  # fmt: skip
QWEN2_5 = Small(
    {**QWEN_IDS, "vision_config": {**QWEN_VISION, "window_size": 32, "fullatt_block_indexes": [1, 3]},
     "text_config": {**TEXT, **AXES, "tie_word_embeddings": False}},
    QWEN, _qwen(tf.Qwen2_5_VLProcessor), QWEN_NAMES, "".join((QWEN[2], QWEN[0], QWEN[3])),
)  # fmt: skip
SMALL: dict[str, Small] = {
    "llava-1.5-7b": LLAVA,
    "llava-v1.6-mistral-7b": Small(
        {"image_token_index": 3, "image_grid_pinpoints": PINPOINTS, "vision_config": VISION, "text_config": TEXT},
        ("<image>",), _llava_next, IMAGE, bos=True,
    ),
    "llava-onevision-0.5b": Small(
        {"image_token_index": 3, "video_token_index": 4, "image_grid_pinpoints": PINPOINTS, "vision_config": VISION,
         "text_config": TEXT},
        ("<image>", "<video>"), _onevision, {**IMAGE, "video_token": "<video>"},
    ),
    "smolvlm-256m": IDEFICS3,
    "paligemma-3b-224": Small(
        {"image_token_index": 3, "projection_dim": 64, "vision_config": {**VISION, "projection_dim": 64},
         "text_config": {**TEXT, "num_key_value_heads": 1}},
        ("<image>",), _paligemma, IMAGE, bos_token="<bos>",
    ),
    "internvl3-1b": Small(
        {"image_token_id": 3, "image_seq_length": 4, "text_config": TEXT, "tie_word_embeddings": False,
         "vision_config": {**VISION, "image_size": [32, 32], "patch_size": [8, 8]}},
        ("<IMG_CONTEXT>", "<img>", "</img>", "<video>"), _internvl,
        {"context_image_token": "<IMG_CONTEXT>", "start_image_token": "<img>", "end_image_token": "</img>",
         "video_token": "<video>"},
    ),
    "gemma-3-4b": Small(
        {"image_token_index": 3, "boi_token_index": 4, "eoi_token_index": 5, "mm_tokens_per_image": 4,
         "vision_config": VISION,
         "text_config": {**TEXT, "sliding_window": 16, "query_pre_attn_scalar": 16,
                         "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}},
        ("<image_soft_token>", "<start_of_image>", "<end_of_image>"), _gemma3,
        {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
        "<start_of_image>", bos=True, chat="{{ bos_token }}" + CHAT,
    ),
    "qwen2.5-vl-3b": QWEN2_5,
    "qwen3-vl-2b": Small(
        {**QWEN_IDS, "vision_config": {**QWEN_VISION, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1, 2]},
         "text_config": {**TEXT, **AXES, "num_hidden_layers": 4, "tie_word_embeddings": False}},  # more than deepstack's
        QWEN, _qwen(tf.Qwen3VLProcessor), QWEN_NAMES, "".join((QWEN[2], QWEN[0], QWEN[3])),
    ),
    # The same classes with other sizes.
    "llava-1.5-13b": LLAVA,
    "smolvlm-500m": IDEFICS3,
    "idefics3-8b": IDEFICS3._replace(processor=_idefics3(split=False), bos=True, chat="{{ bos_token }}" + CHAT),
    "qwen2.5-vl-7b": QWEN2_5,
}  # fmt: skip


def small_config(name: str) -> dict[str, Any]:
    """The composed `model` section of a model with the sizes of its small checkpoint, in float32."""
    section, vocabulary, small = conf(f"model/{name}"), len(processor(name).tokenizer.get_vocab()), SMALL[name]
    config = _merged(_merged(section["config"], small.config), {"text_config": {"vocab_size": vocabulary}})
    return {**section, "name": f"small-{name}", "dtype": "float32", "hub_id": None, "config": config}


def processor(name: str) -> ProcessorMixin:
    """The processor of a small checkpoint. It may add tokens to its tokenizer."""
    small = SMALL[name]
    made = small.processor(tokenizer(small))
    made.chat_template = small.chat.replace("IMAGE", small.placed or small.special[0])
    return made


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {k: _merged(base[k], v) if isinstance(v, Mapping) and isinstance(base.get(k), Mapping) else v
            for k, v in over.items()}  # fmt: skip
    return {**base, **both}


def write(name: str, folder: Path) -> dict[str, Any]:
    """A random checkpoint of a model in a folder. Returns its composed `model` section, with the path."""
    section = small_config(name)
    own = implementation(section)
    torch.manual_seed(zlib.crc32(name.encode()))
    model = own.model_class(own.config_class(**section["config"])).eval()
    for parameter in model.parameters():
        spread = 0.12 if parameter.dim() > 1 else 0.3
        parameter.data.normal_(float(parameter.dim() == 1), spread)  # norms and gates around 1
    model.generation_config.update(eos_token_id=2, pad_token_id=0, bos_token_id=1)
    model.save_pretrained(folder, max_shard_size="150KB")
    save(processor(name), folder)
    return {**section, "path": str(folder)}


def save(made: ProcessorMixin, folder: Path) -> None:
    """As `save_pretrained`, which needs torchvision where the processor is also for videos."""
    made.tokenizer.save_pretrained(folder)
    made.image_processor.save_pretrained(folder)
    own = {k: v for k, v in made.to_dict().items() if k not in made.get_attributes()}
    (folder / "processor_config.json").write_text(json.dumps(own))
    (folder / "chat_template.jinja").write_text(made.chat_template)
