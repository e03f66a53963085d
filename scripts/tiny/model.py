"""The tiny BLIP-2: the real Hugging Face classes, 64 wide, 6 + 6 + 6 layers, and its processor."""

from __future__ import annotations

import torch
from tokenizers import processors
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from blip2sweep.tasks import scenes

from .words import EOS, Wording, corpus, train_bpe

N_QUERIES = 12
WIDTH, DEPTH, HEADS, PATCH = 64, 6, 4, 8
SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]  # OPT's ids 0..3; OPT begins and ends a text with </s>
PROMPT = "Question: {} Answer:"
WORDING = Wording(caption="", question=PROMPT, first=N_QUERIES, special=True)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE as OPT's, trained on the words of the scenes."""
    bpe = train_bpe(corpus(WORDING), SPECIAL_TOKENS)
    bpe.post_processor = processors.TemplateProcessing(
        single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        model_max_length=128,
    )


def make_processor() -> Blip2Processor:
    """Image processor (48 px, without torchvision) and tokenizer; it adds the `<image>` token itself."""
    size = {"height": scenes.IMAGE_SIZE, "width": scenes.IMAGE_SIZE}
    images = BlipImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    return Blip2Processor(images, make_tokenizer(), num_query_tokens=N_QUERIES)


def make_config(processor: Blip2Processor) -> Blip2Config:
    """Configuration with the vocabulary and the image token of `processor`."""
    tokenizer = processor.tokenizer
    common = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}
    vision = Blip2VisionConfig(
        **common,
        intermediate_size=4 * WIDTH,
        image_size=scenes.IMAGE_SIZE,
        patch_size=PATCH,
        initializer_range=0.02,  # the class's own default, 1e-10, does not train
    )
    qformer = Blip2QFormerConfig(
        **common,
        intermediate_size=4 * WIDTH,
        encoder_hidden_size=WIDTH,
        vocab_size=len(tokenizer),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=64,
        cross_attention_frequency=2,
    )
    text = OPTConfig(
        **common,
        vocab_size=len(tokenizer),
        word_embed_proj_dim=WIDTH,
        ffn_dim=4 * WIDTH,
        max_position_embeddings=96,
        dropout=0.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=EOS,
        eos_token_id=EOS,
    )
    return Blip2Config(
        vision_config=vision.to_dict(),
        qformer_config=qformer.to_dict(),
        text_config=text.to_dict(),
        num_query_tokens=N_QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )


def make_model(processor: Blip2Processor) -> Blip2ForConditionalGeneration:
    """A fresh model (about 1 M parameters, fp32); the caller seeds torch."""
    model = Blip2ForConditionalGeneration(make_config(processor))
    torch.nn.init.normal_(model.query_tokens, std=0.5)  # zeros by default
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model
