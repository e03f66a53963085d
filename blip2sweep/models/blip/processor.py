"""Tokenizer and image processor of a BLIP-1 checkpoint, and whether they fit the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from transformers import BlipConfig, BlipProcessor

from blip2sweep.models.checkpoints import shown
from blip2sweep.models.config_file import first_line
from blip2sweep.models.processor import picture_mistakes, read_image_processor, read_tokenizer, vocabulary_mistakes


def config_mistakes(config: BlipConfig) -> Iterator[str]:
    token = config.text_config.sep_token_id
    if type(token) is not int or not 0 <= token < config.text_config.vocab_size:
        yield f"config.json: text_config.sep_token_id is {shown(token)}, not a token that can end a text"


def read_processor(folder: Path, config: BlipConfig) -> tuple[BlipProcessor | None, list[str]]:
    """(processor, mistakes). Releases have preprocessor_config.json alone, which is enough."""
    tokenizer, wrong = read_tokenizer(folder)
    images, more = read_image_processor(folder)
    wrong += more
    if tokenizer is None or images is None:
        return None, wrong
    try:
        processor = BlipProcessor(images, tokenizer)
    except Exception as error:  # of any kind: anybody may have written the files
        return None, [*wrong, f"the processor cannot be made ({first_line(error)})"]
    text, end = config.text_config, tokenizer.sep_token_id
    wrong += [*picture_mistakes(images, config.vision_config.image_size)]
    wrong += vocabulary_mistakes(tokenizer, text.vocab_size, ("", None))
    if end != text.sep_token_id:
        wrong.append(f"config.json: text_config.sep_token_id is {shown(text.sep_token_id)}, the tokenizer's is {end}")
    return processor, wrong
