"""A random model of LLaVA's kind with 576 tokens a picture: its config, and a checkpoint of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

M = TypeVar("M", bound=torch.nn.Module)

# Pictures of LLaVA-1.5's size, a narrow tower and language model: a picture costs half of what its question costs.
LLAVA_MID: dict[str, Any] = {
    "name": "llava-mid", "hub_id": None, "dtype": "float32",
    "prompts": {"caption": "word1 word2 word3 word4 word5 word6", "vqa": "{}"},
    "chat": "word7 {image} {} word8",
    "config": {
        "image_token_index": 4,
        "vision_config": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 13, "num_attention_heads": 4, "image_size": 336, "patch_size": 14},
        "text_config": {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 8192},
    },
}  # fmt: skip


def draw(
    config: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast, folder: Path, device: str
) -> LlavaForConditionalGeneration:
    """A random model of the config's shapes; its processor is written to `folder`. Every picture is another one, and every
    layer has a bias to quantize."""
    sizes = config["config"]
    ends = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}
    text = {**sizes["text_config"], **ends, "initializer_range": 0.05}
    shapes = {**sizes, "vision_config": {**sizes["vision_config"], "initializer_range": 0.05}, "text_config": text}
    torch.manual_seed(0)
    with torch.device(device):
        model = LlavaForConditionalGeneration(LlavaConfig(**shapes))
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                torch.nn.init.normal_(module.bias, std=0.02)
    model.generation_config.update(**ends)
    vision = sizes["vision_config"]
    side = {"height": vision["image_size"], "width": vision["image_size"]}
    images = CLIPImageProcessorPil(size={"shortest_edge": vision["image_size"]}, crop_size=side)
    LlavaProcessor(
        images, tokenizer, patch_size=vision["patch_size"], vision_feature_select_strategy=sizes["vision_feature_select_strategy"],
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return in_dtype(model, config["dtype"])


def in_dtype(model: M, dtype: str) -> M:
    """A model with its parameters in another dtype. Buffers, such as those of rotary positions, stay as from_pretrained has
    them."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype))
    return model
