"""The tiny retrieval model: the vision tower of the embedded BLIP-2, a Q-Former that reads text too, and its processor."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    BlipProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from blip2sweep.tasks import scenes

DEPTH, PROJECTED = 4, 64  # layers of the Q-Former; width of the comparison
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def make_tokenizer(n_scenes: int = 3000) -> PreTrainedTokenizerFast:
    """One token a word of the scenes' captions, in BERT's form: [CLS] text [SEP]."""
    rng, rules = random.Random(1), pre_tokenizers.BertPreTokenizer()
    captions = [text for _ in range(n_scenes) for text in scenes.captions(scenes.scene(rng), rng)]
    words = sorted({word for text in captions for word, _ in rules.pre_tokenize_str(text.lower())} - {"."})
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), rules
    special = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        padding_side="right", model_max_length=64,
    )  # fmt: skip


def make_processor() -> BlipProcessor:
    size = {"height": scenes.IMAGE_SIZE, "width": scenes.IMAGE_SIZE}
    return BlipProcessor(BlipImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.25] * 3), make_tokenizer())


def make_config(tiny: Blip2Config, vocabulary: int) -> Blip2Config:
    own = {**tiny.qformer_config.to_dict(), "num_hidden_layers": DEPTH, "vocab_size": vocabulary}
    qformer = Blip2QFormerConfig(**{**own, "use_qformer_text_input": True, "pad_token_id": 0})
    return Blip2Config(
        vision_config=tiny.vision_config.to_dict(), qformer_config=qformer.to_dict(),
        num_query_tokens=tiny.num_query_tokens, image_text_hidden_size=PROJECTED,
    )  # fmt: skip


def make_model(tiny: Path, processor: BlipProcessor) -> Blip2ForImageTextRetrieval:
    """The embedded BLIP-2's tower, queries and first Q-Former layers; all that reads text is new. The caller seeds torch.

    The tower has its outlier channels, and is not trained.
    """
    source = Blip2ForConditionalGeneration.from_pretrained(tiny, dtype=torch.float32).float()
    model = Blip2ForImageTextRetrieval(make_config(source.config, len(processor.tokenizer)))
    nn.init.normal_(model.embeddings.word_embeddings.weight, std=0.5)
    nn.init.normal_(model.embeddings.position_embeddings.weight, std=0.2)
    theirs = {n: x for n, x in source.state_dict().items() if not n.startswith("language_model.")}
    wanted = model.state_dict()
    model.load_state_dict({n: x for n, x in theirs.items() if n in wanted}, strict=False)
    model.vision_model.requires_grad_(False)
    return model
