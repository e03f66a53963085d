"""Tokenizer and image processor of a checkpoint, and whether they fit the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer, Blip2Config, Blip2Processor, BlipImageProcessorPil

from blip2sweep.models.checkpoints import refused, shown
from blip2sweep.models.config_file import first_line, read_object

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")


def load_processor(folder: Path, config: Blip2Config, name: str) -> Blip2Processor:
    """Tokenizer and image processor; always the PIL one, so that pixels do not depend on torchvision being installed.

    name: the model's. Raises UserError, all in one line, where they do not fit the model: with another number of query
    tokens the image would silently be left out.
    """
    processor, wrong = read_processor(folder, config)
    if wrong or processor is None:
        raise refused(folder, name, wrong)
    return processor


def read_processor(folder: Path, config: Blip2Config) -> tuple[Blip2Processor | None, list[str]]:
    """(processor, mistakes): None where a piece of it cannot be read."""
    tokenizer, wrong = _tokenizer(folder)
    told, more = read_object(folder / "processor_config.json")
    wrong += more
    if told is None:  # where transformers looks for everything else
        return None, wrong
    queries = told.get("num_query_tokens")
    if type(queries) is not int or queries != config.num_query_tokens:
        wrong.append(
            f"processor_config.json: num_query_tokens is {shown(queries)}, the model has {config.num_query_tokens}"
        )
    images, more = _image_processor(folder)
    wrong += more
    if tokenizer is None or images is None:
        return None, wrong
    try:
        processor = Blip2Processor(images, tokenizer, num_query_tokens=queries)
    except Exception as error:  # of any kind: the files are anybody's
        return None, [*wrong, f"the processor cannot be made ({first_line(error)})"]
    return processor, [*wrong, *_size(images, config), *_vocabulary(processor, config)]


def _tokenizer(folder: Path) -> tuple[Any, list[str]]:
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None, [f"the tokenizer is missing (none of {', '.join(TOKENIZER_FILES)})"]
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False), []
    except Exception as error:
        return None, [f"the tokenizer cannot be read ({first_line(error)})"]


def _image_processor(folder: Path) -> tuple[Any, list[str]]:
    try:
        return BlipImageProcessorPil.from_pretrained(folder, local_files_only=True), []
    except Exception as error:
        return None, [f"the image processor cannot be read ({first_line(error)})"]


def _size(images: Any, config: Blip2Config) -> Iterator[str]:
    """A picture through the processor: it must come out as the vision tower takes it."""
    size = config.vision_config.image_size
    try:
        found = dict(images.size)
        if found != {"height": size, "width": size}:
            yield f"the image processor resizes to {found}, the model takes {size} x {size}"
            return
        pixels = images(images=Image.new("RGB", (20, 10), (200, 100, 0)), return_tensors="pt")["pixel_values"]
    except Exception as error:
        yield f"the image processor fails on a picture ({first_line(error)})"
        return
    if tuple(pixels.shape) != (1, 3, size, size):
        yield f"the image processor makes {tuple(pixels.shape)} of a picture, the model takes {(1, 3, size, size)}"
    elif not torch.isfinite(pixels).all():
        yield "the image processor makes pixels that are NaN or Inf (image_mean, image_std, rescale_factor)"


def _vocabulary(processor: Blip2Processor, config: Blip2Config) -> Iterator[str]:
    """Every token the tokenizer can say must have a row of its own in the embedding."""
    tokenizer, rows = processor.tokenizer, config.text_config.vocab_size
    try:
        known = tokenizer.get_vocab()
        first = tokenizer(["a", "a b"])["input_ids"][0][:1]
    except Exception as error:
        yield f"the tokenizer fails on a text ({first_line(error)})"
        return
    if known and max(known.values()) >= rows:
        yield f"the tokenizer has tokens up to {max(known.values())}, text_config.vocab_size is {rows}"
    image = known.get(str(processor.image_token))
    if type(config.image_token_index) is int and image != config.image_token_index:
        yield f"config.json: image_token_index is {config.image_token_index}, the tokenizer's image token is {image}"
    if tokenizer.pad_token_id is None:
        yield "the tokenizer has no pad token"
    if config.text_config.model_type == "opt" and (not first or first[0] != tokenizer.bos_token_id):
        yield f"the tokenizer sets no BOS token ({tokenizer.bos_token_id}) before a text, as OPT was trained with"
