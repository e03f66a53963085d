"""The processor of a checkpoint for pictures alone. torchvision is not needed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from transformers import ProcessorMixin

# From its own module: without torchvision, transformers 5.17 exports a placeholder in its place.
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from blip2sweep.errors import UserError
from blip2sweep.models.config_file import first_line
from blip2sweep.models.image_text.chat import IMAGE, TEMPLATE, USER, Chat
from blip2sweep.models.image_text.counted import count_mistakes
from blip2sweep.models.image_text.pixels import TEXT, decoded, pixel_rows
from blip2sweep.models.processor import read_tokenizer, vocabulary_mistakes

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedTokenizerBase

VIDEO = "video_processor"


def read_processor(
    folder: Path, config: PreTrainedConfig, chat: str | None, blocks: str
) -> tuple[ProcessorMixin | None, list[str]]:
    """(processor, mistakes). The processor is None where a piece of it cannot be read.

    chat: see `image_text.chat`. blocks: the path of the vision tower's blocks.
    """
    tokenizer, wrong = read_tokenizer(folder)
    images, more = _images(folder)
    wrong += more
    if tokenizer is None or images is None:
        return None, wrong
    try:
        processor = _made(folder, config, images, tokenizer)
    except Exception as error:  # of any kind: anybody may have written the files
        return None, [*wrong, f"the processor cannot be made ({first_line(error)})"]
    return processor, [*wrong, *_mistakes(processor, config, chat, blocks)]


def _images(folder: Path) -> tuple[BaseImageProcessor | None, list[str]]:
    """(image processor, mistakes). It is always the PIL one, so that pixels do not depend on torchvision."""
    try:
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil"), []
    except Exception as error:
        return None, [f"the image processor cannot be read ({first_line(error)})"]


def _made(
    folder: Path, config: PreTrainedConfig, images: BaseImageProcessor, tokenizer: PreTrainedTokenizerBase
) -> ProcessorMixin:
    cls = for_pictures(_class(str(config.model_type)))
    settings, _ = cls.get_processor_dict(folder, local_files_only=True)
    pieces = {"image_processor": images, "tokenizer": tokenizer}
    processor = cls.from_args_and_dict([pieces.get(name) for name in cls.get_attributes()], settings)
    processor.chat_template = processor.chat_template or tokenizer.chat_template  # older snapshots' stands there alone
    _complete(processor, config)
    return processor


def _class(model_type: str) -> type[ProcessorMixin]:
    import transformers

    name = PROCESSOR_MAPPING_NAMES.get(model_type)
    if name is None:
        raise ValueError(f"transformers has no processor for model_type {model_type}")
    return getattr(transformers, name)


def for_pictures(cls: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The class without its processor of videos, which needs torchvision."""
    pieces = [name for name in cls.get_attributes() if name != VIDEO]
    saved = type(cls.__name__, (cls,), {"get_attributes": classmethod(lambda own: pieces)})

    def check(self: ProcessorMixin, name: str, argument: object) -> object:
        return None if name == VIDEO else cls.check_argument_for_proper_class(self, name, argument)

    def save(self: ProcessorMixin, folder: Path, **settings: object) -> object:  # transformers' own saves every piece
        own = copy(self)
        own.__class__ = saved
        vars(own).pop(VIDEO, None)
        return own.save_pretrained(folder, **settings)

    module = sys.modules[cls.__module__]
    if getattr(module, "num2words", str) is None:  # SmolVLM's asks for the package and uses it for videos alone
        module.num2words = str  # type: ignore[attr-defined]
    return type(cls.__name__, (cls,), {"check_argument_for_proper_class": check, "save_pretrained": save})


def _complete(processor: ProcessorMixin, config: PreTrainedConfig) -> None:
    """Set what snapshots of LLaVA from before 2024 leave out and `config.json` says."""
    if getattr(processor, "patch_size", 0) is None:
        processor.patch_size = config.vision_config.patch_size
        processor.num_additional_image_tokens = 1  # CLIP's class token
    if getattr(processor, "vision_feature_select_strategy", "") is None:
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy


# ---- whether it fits the model


def _mistakes(processor: ProcessorMixin, config: PreTrainedConfig, chat: str | None, blocks: str) -> Iterator[str]:
    text, index = config.get_text_config(), getattr(config, "image_token_id", None)
    yield from vocabulary_mistakes(processor.tokenizer, text.vocab_size, ("", None))
    yield from _chat_mistakes(processor, chat)
    try:
        row = pixel_rows(processor, Image.new("RGB", (20, 10), (200, 100, 0)))
    except Exception as error:
        yield f"the image processor fails on a picture ({first_line(error)})"
        return
    if not row.values.isfinite().all():
        yield "the image processor makes pixels that are NaN or Inf (image_mean, image_std, rescale_factor)"
    placeholder = Chat(processor, None).ids(decoded(row.further[TEXT][0]))
    if index not in placeholder:
        yield f"config.json: image_token_id is {index}, which the processor does not write for a picture"
    else:
        yield from count_mistakes(config, blocks, row, placeholder.count(index))


def _chat_mistakes(processor: ProcessorMixin, chat: str | None) -> Iterator[str]:
    wrong = list(_template_mistakes(processor, chat))
    yield from wrong
    if wrong:
        return
    try:
        for prompted in (False, True):
            Chat(processor, chat).references(["a"], 0, prompted)
    except UserError as error:
        yield str(error)


def _template_mistakes(processor: ProcessorMixin, chat: str | None) -> Iterator[str]:
    if chat is None:
        return
    if chat != TEMPLATE:
        if chat.count(IMAGE) != 1 or chat.count(USER) != 1:
            yield f"model.chat={chat!r} has not one {IMAGE} and one {USER}"
        return
    try:
        text = Chat(processor, chat).around("a")
    except Exception as error:
        yield f"the chat template is missing or fails ({first_line(error)}); model.chat can be a text instead"
        return
    if text.count(processor.image_token) != 1:
        yield "the chat template leaves the picture out"
