"""The tiny LLaVA: the real Hugging Face classes, 64 wide, a CLIP tower, two linears and a Llama, and its processor."""

from __future__ import annotations

from tokenizers import processors
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from blip2sweep.tasks import scenes
from scripts.tiny.losses import PATCH, SIDE, WIDTH
from scripts.tiny.words import EOS, Wording, corpus, train_bpe

DEPTH, HEADS, KV_HEADS, MLP = 6, 4, 2, 192
N_IMAGE = SIDE * SIDE  # image tokens
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>"]  # Llama's ids 0..2
BOS = 1
BEFORE, AFTER = "USER: ", "\n{} ASSISTANT:"  # around the image, as LLaVA-1.5
CAPTION_REQUEST = "Provide a one-sentence caption for the provided image."  # LLaVA-1.5's
PROMPT = f"{BEFORE}<image>{AFTER}"
WORDING = Wording(
    caption=AFTER.format(CAPTION_REQUEST),
    question=AFTER,
    first=4 + N_IMAGE,  # <s>, USER, colon, space
    special=False,
)
# LLaVA-1.5's template without its assistant turns' training marks: one user turn renders PROMPT.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the words of the scenes; a text begins with <s> and ends with </s>, as Llama's."""
    bpe = train_bpe([BEFORE, *corpus(WORDING)], SPECIAL_TOKENS)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=256,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    return tokenizer


def make_processor() -> LlavaProcessor:
    """Image processor (48 px, without torchvision), tokenizer and chat template."""
    side = {"height": scenes.IMAGE_SIZE, "width": scenes.IMAGE_SIZE}
    size = {"shortest_edge": scenes.IMAGE_SIZE}
    images = CLIPImageProcessorPil(size=size, crop_size=side, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    return LlavaProcessor(
        images,
        make_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # the class token, which "default" leaves out
        chat_template=CHAT_TEMPLATE,
    )


def make_config(processor: LlavaProcessor) -> LlavaConfig:
    """Configuration with the vocabulary and the image token of `processor`."""
    tokenizer = processor.tokenizer
    common = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}
    vision = CLIPVisionConfig(
        **common,
        intermediate_size=4 * WIDTH,
        image_size=scenes.IMAGE_SIZE,
        patch_size=PATCH,
        projection_dim=WIDTH,
    )
    text = LlamaConfig(
        **common,
        intermediate_size=MLP,
        num_key_value_heads=KV_HEADS,
        vocab_size=len(tokenizer),
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        initializer_range=0.05,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_seq_length=N_IMAGE,
        image_token_index=processor.image_token_id,
        initializer_range=0.05,
    )


def make_model(processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    """A fresh model (about 0.7 M parameters, fp32); the caller seeds torch."""
    model = LlavaForConditionalGeneration(make_config(processor))
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model
