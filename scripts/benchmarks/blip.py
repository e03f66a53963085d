"""Random BLIP-1 checkpoints of the real shapes, with weights that are exactly numbers of 16 bits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForQuestionAnswering,
    BlipImageProcessorPil,
    BlipProcessor,
    PreTrainedTokenizerFast,
)

from scripts.benchmarks.models import conf

if TYPE_CHECKING:
    from blip2sweep.wire.model_section import ModelSection

PAD, CLS, SEP, DEC = "[PAD]", "[CLS]", "[SEP]", "[DEC]"
SPECIAL = (PAD, "[UNK]", CLS, SEP, DEC)
KINDS = {
    "caption": ("blip-image-captioning-base", BlipForConditionalGeneration),
    "vqa": ("blip-vqa-base", BlipForQuestionAnswering),
}


def section(kind: str, folder: Path, small: bool = False) -> ModelSection:
    """The `model` section of a checkpoint in a folder. small: two blocks of a few numbers, to try the script."""
    own = conf(KINDS[kind][0])
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    more = {"text_config": {"vocab_size": 64}, "vision_config": {"image_size": 32, "patch_size": 8}} if small else {}
    shapes = {name: {**own["config"][name], **sizes, **x} for name, x in more.items()} or own["config"]
    settings: dict[str, Any] = {
        "device_map": None,
        "dtype_per_part": {},
        "path": str(folder),
        "hub_id": None,
        "stored": "float16",
    }
    return cast("ModelSection", {**own, **settings, "config": shapes})


def write(kind: str, folder: Path, small: bool = False) -> ModelSection:
    """A random checkpoint of the shapes of a kind's model, with a tokenizer that has one token for each word."""
    own = section(kind, folder, small)
    shapes = cast("Mapping[str, Mapping[str, Any]]", own["config"])
    ids = {f"{name}_token_id": SPECIAL.index(x) for name, x in (("bos", DEC), ("sep", SEP), ("pad", PAD))}
    torch.manual_seed(0)
    seen = {**shapes["vision_config"], "initializer_range": 0.02}  # 1e-10 by default, which is 0 in 16 bits
    config = BlipConfig(**{**shapes, "vision_config": seen, "text_config": {**shapes["text_config"], **ids}})
    model = KINDS[kind][1](config)
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.02)
    model.half().save_pretrained(folder)
    size = shapes["vision_config"]["image_size"]
    images = BlipImageProcessorPil(size={"height": size, "width": size})
    BlipProcessor(images, _tokenizer(shapes["text_config"]["vocab_size"])).save_pretrained(folder)
    return own


def _tokenizer(n: int) -> PreTrainedTokenizerFast:
    words = [*SPECIAL, *(f"word{i}" for i in range(n - len(SPECIAL)))]
    rules = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    rules.pre_tokenizer = Whitespace()
    around = [(CLS, SPECIAL.index(CLS)), (SEP, SPECIAL.index(SEP))]
    rules.post_processor = TemplateProcessing(single=f"{CLS} $A {SEP}", special_tokens=around)
    return PreTrainedTokenizerFast(
        tokenizer_object=rules, pad_token=PAD, unk_token="[UNK]", cls_token=CLS, sep_token=SEP, padding_side="right"
    )
