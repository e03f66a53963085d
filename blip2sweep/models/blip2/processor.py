"""Tokenizer and image processor of a BLIP-2 checkpoint, and whether they fit the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from transformers import Blip2Config, Blip2Processor, InstructBlipConfig, InstructBlipProcessor

from blip2sweep.models import opt
from blip2sweep.models.checkpoints import shown
from blip2sweep.models.config_file import first_line, read_object
from blip2sweep.models.processor import picture_mistakes, read_image_processor, read_tokenizer, vocabulary_mistakes

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedTokenizerBase

P = TypeVar("P", bound=Blip2Processor | InstructBlipProcessor)


def read_processor(folder: Path, config: Blip2Config) -> tuple[Blip2Processor | None, list[str]]:
    """(processor, mistakes)."""
    return read_with_queries(folder, config, lambda images, tokenizer, n: Blip2Processor(images, tokenizer, n))


def read_with_queries(
    folder: Path,
    config: Blip2Config | InstructBlipConfig,
    made: Callable[[BaseImageProcessor, PreTrainedTokenizerBase, int], P],
) -> tuple[P | None, list[str]]:
    """(processor, mistakes). made: makes it of an image processor, a tokenizer and the number of query tokens.

    Another number of query tokens is a mistake, because the image would silently be left out.
    """
    tokenizer, wrong = read_tokenizer(folder)
    settings, more = read_object(folder / "processor_config.json")
    wrong += more
    if settings is None:  # transformers reads everything else from it
        return None, wrong
    queries = settings.get("num_query_tokens")
    if type(queries) is not int or queries != config.num_query_tokens:
        wrong.append(
            f"processor_config.json: num_query_tokens is {shown(queries)}, the model has {config.num_query_tokens}"
        )
    images, more = read_image_processor(folder)
    wrong += more
    if tokenizer is None or images is None:
        return None, wrong
    try:
        processor = made(images, tokenizer, config.num_query_tokens)
    except Exception as error:  # of any kind: anybody may have written the files
        return None, [*wrong, f"the processor cannot be made ({first_line(error)})"]
    size = config.vision_config.image_size
    return processor, [*wrong, *picture_mistakes(images, size), *_tokens(processor, config)]


def _tokens(
    processor: Blip2Processor | InstructBlipProcessor, config: Blip2Config | InstructBlipConfig
) -> Iterator[str]:
    """The mistakes of the tokenizer. OPT needs its BOS token."""
    tokenizer, text = processor.tokenizer, config.text_config
    image = (str(processor.image_token), config.image_token_index)
    own = opt.tokenizer_mistakes if text.model_type == "opt" else None
    yield from vocabulary_mistakes(tokenizer, text.vocab_size, image, own)
