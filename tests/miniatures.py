"""Random checkpoints of BLIP's family in the Hugging Face layout: every tensor drawn, saved in shards, with their configs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForQuestionAnswering,
    BlipImageProcessorPil,
    BlipProcessor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tests.checkpoints import T5_TEXT, TINY, conf

SIZE = {"height": 32, "width": 32}
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 32,
    "patch_size": 8, "qkv_bias": True,
}  # fmt: skip
QFORMER = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "encoder_hidden_size": 32, "cross_attention_frequency": 2,
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 4,
}  # fmt: skip
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", *map(chr, range(ord("a"), ord("z") + 1))]
PAD, CLS, SEP, DEC = (WORDS.index(f"[{word}]") for word in ("PAD", "CLS", "SEP", "DEC"))


def drawn(model: PreTrainedModel) -> PreTrainedModel:
    """The same model with every tensor drawn at random, so that none is without effect and pictures and words differ."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                scales = "norm" in type(module).__name__.lower() and name == "weight"
                parameter.normal_(float(scales), _spread(module, parameter))
    return model.eval()


def _spread(module: nn.Module, parameter: nn.Parameter) -> float:
    if isinstance(module, nn.Linear | nn.Conv2d) and parameter.dim() > 1:
        return (4 if isinstance(module, nn.Conv2d) else 2) * parameter[0].numel() ** -0.5
    return 0.2 if parameter.dim() == 1 else 1.0


def letters(**further: Any) -> PreTrainedTokenizerFast:
    """A tokenizer of small letters in BERT's form: [CLS] text [SEP]. Questions of other lengths have other numbers of tokens."""
    rules = Tokenizer(
        models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]", continuing_subword_prefix="")
    )
    rules.normalizer = normalizers.BertNormalizer(lowercase=True)
    rules.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rules.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)])
    return PreTrainedTokenizerFast(
        tokenizer_object=rules, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        padding_side="right", **further,
    )  # fmt: skip


def tinys(family: str) -> PreTrainedTokenizerFast:
    """The tiny model's tokenizer with BOS before a text, or for T5 with EOS behind it."""
    rules = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    single, names = ("$A </s>", ["</s>"]) if family == "t5" else ("<s> $A", ["<s>"])
    special = [(name, rules.token_to_id(name)) for name in names]
    rules.post_processor = TemplateProcessing(single=single, special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=rules, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        padding_side="right" if family == "t5" else "left",
    )  # fmt: skip


def saved(model: PreTrainedModel, processor: Any, folder: Path) -> Path:
    model.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    processor.save_pretrained(folder)
    return folder


def mini(name: str, **sections: Mapping[str, Any]) -> dict[str, Any]:
    """The composed model `name` in float32, with small sizes in place of its own."""
    full = conf(f"model/{name}")
    small = {k: {**full["config"].get(k, {}), **v} if isinstance(v, Mapping) else v for k, v in sections.items()}
    return {**full, "name": f"mini-{name}", "dtype": "float32", "config": {**full["config"], **small}}


# ---- InstructBLIP

OF_INSTRUCTBLIP = {"llama": "instructblip-vicuna-7b", "t5": "instructblip-flan-t5-xl"}
QUERIES = 5


def instructblip_config(family: str) -> dict[str, Any]:
    text, question = (
        LLAMA if family == "llama" else {**T5_TEXT, "vocab_size": 448},
        {**QFORMER, "vocab_size": len(WORDS)},
    )
    sections = {"vision_config": VISION, "qformer_config": question, "text_config": text}
    return mini(OF_INSTRUCTBLIP[family], **sections, num_query_tokens=QUERIES)  # type: ignore[arg-type]


def write_instructblip(folder: Path, family: str) -> Path:
    tokenizer, fields = tinys(family), instructblip_config(family)["config"]
    text = {"vocab_size": 448, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    question = {**fields["qformer_config"], "pad_token_id": PAD, "max_position_embeddings": 128}
    sections = {**fields, "qformer_config": question, "text_config": {**fields["text_config"], **text}}
    model = InstructBlipForConditionalGeneration(InstructBlipConfig(**sections, image_token_index=447))
    model.language_model.lm_head.weight = nn.Parameter(torch.empty(448, 32))  # of its own, as Flan-T5's
    images = BlipImageProcessorPil(size=SIZE)
    return saved(drawn(model), InstructBlipProcessor(images, tokenizer, letters(), num_query_tokens=QUERIES), folder)


# ---- BLIP-1

BERT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
OF_BLIP = {"blip-image-captioning-base": BlipForConditionalGeneration, "blip-vqa-base": BlipForQuestionAnswering}


def blip_config(name: str) -> dict[str, Any]:
    vision = {k: v for k, v in VISION.items() if k != "qkv_bias"}
    return mini(name, vision_config=vision, text_config={**BERT, "vocab_size": len(WORDS)})


def write_blip(folder: Path, name: str) -> Path:
    fields = blip_config(name)["config"]
    tokens = {"bos_token_id": DEC, "sep_token_id": SEP, "pad_token_id": PAD, "max_position_embeddings": 128}
    config = BlipConfig(**{**fields, "text_config": {**fields["text_config"], **tokens}})
    return saved(drawn(OF_BLIP[name](config)), BlipProcessor(BlipImageProcessorPil(size=SIZE), letters()), folder)


# ---- retrieval


def retrieval_config() -> dict[str, Any]:
    question = {**QFORMER, "vocab_size": len(WORDS)}
    sections = {"vision_config": VISION, "qformer_config": question}
    return mini("blip2-itm-vit-g", **sections, num_query_tokens=QUERIES, image_text_hidden_size=8)  # type: ignore[arg-type]


def write_retrieval(folder: Path) -> Path:
    fields = retrieval_config()["config"]
    question = {**fields["qformer_config"], "pad_token_id": PAD, "max_position_embeddings": 128}
    model = Blip2ForImageTextRetrieval(Blip2Config(**{**fields, "qformer_config": question}))
    return saved(drawn(model), BlipProcessor(BlipImageProcessorPil(size=SIZE), letters()), folder)
