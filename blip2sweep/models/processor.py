"""The tokenizer and the image processor of all architectures, read and compared with the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from transformers import AutoTokenizer, BlipImageProcessorPil

from blip2sweep.models.architecture import Implementation, Processor
from blip2sweep.models.checkpoints import refused
from blip2sweep.models.config_file import first_line

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedTokenizerBase

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")


def load_processor(own: Implementation, folder: Path, config: PreTrainedConfig, name: str) -> Processor:
    """The processor of a checkpoint. name: the model's.

    Raises UserError with all mistakes in one line where it does not fit the model.
    """
    processor, wrong = own.read_processor(folder, config)
    if wrong or processor is None:
        raise refused(folder, name, wrong)
    return processor


def read_tokenizer(folder: Path) -> tuple[PreTrainedTokenizerBase | None, list[str]]:
    """(tokenizer, mistakes)."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None, [f"the tokenizer is missing (none of {', '.join(TOKENIZER_FILES)})"]
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False), []
    except Exception as error:
        return None, [f"the tokenizer cannot be read ({first_line(error)})"]


def read_image_processor(folder: Path) -> tuple[BaseImageProcessor | None, list[str]]:
    """(image processor, mistakes). It is always the PIL one, so that pixels do not depend on torchvision."""
    try:
        return BlipImageProcessorPil.from_pretrained(folder, local_files_only=True), []
    except Exception as error:
        return None, [f"the image processor cannot be read ({first_line(error)})"]


def picture_mistakes(images: BaseImageProcessor, size: int) -> Iterator[str]:
    """The mistakes of an image processor, found by sending a picture through it. size: of the vision tower's images."""
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


def vocabulary_mistakes(
    tokenizer: PreTrainedTokenizerBase,
    rows: int,
    image: tuple[str, object],
    own: Callable[[PreTrainedTokenizerBase, list[int]], Iterator[str]] | None = None,
) -> Iterator[str]:
    """The mistakes of a tokenizer. Every token must have a row of its own in the embedding, which has `rows`.

    image: the processor's image token and the config's number for it. own: further checks of a family of language
    models; it gets the tokenizer and the ids of a text.
    """
    try:
        known = tokenizer.get_vocab()
        ids = tokenizer(["a", "a b"])["input_ids"][0]
    except Exception as error:
        yield f"the tokenizer fails on a text ({first_line(error)})"
        return
    if known and max(known.values()) >= rows:
        yield f"the tokenizer has tokens up to {max(known.values())}, text_config.vocab_size is {rows}"
    token, index = image
    if type(index) is int and known.get(token) != index:
        yield f"config.json: image_token_index is {index}, the tokenizer's image token is {known.get(token)}"
    if tokenizer.pad_token_id is None:
        yield "the tokenizer has no pad token"
    if own is not None:
        yield from own(tokenizer, ids)
