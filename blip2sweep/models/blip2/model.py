"""BLIP-2 as a worker runs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor

from blip2sweep.models.blip2.forward import Bridge, QueriesFirst, Vision
from blip2sweep.models.blip2.graphs import graphs
from blip2sweep.models.blip2.processor import read_processor
from blip2sweep.models.checkpoints import shown
from blip2sweep.models.config_file import end_tokens
from blip2sweep.models.opt import Opt
from blip2sweep.models.ragged import Rows
from blip2sweep.models.t5 import T5
from blip2sweep.models.text import LanguageModel

if TYPE_CHECKING:
    from PIL.Image import Image

    from blip2sweep.models.architecture import ImageStage
    from blip2sweep.models.language import Language

__all__ = [
    "config_class", "config_mistakes", "graphs", "image_stages", "language", "model_class", "pixels", "read_processor",
]  # fmt: skip

config_class, model_class = Blip2Config, Blip2ForConditionalGeneration
LANGUAGES: dict[str, type[Opt] | type[T5]] = {"opt": Opt, "t5": T5}


def config_mistakes(config: Blip2Config) -> Iterator[str]:
    if type(config.image_token_index) is not int:
        yield f"config.json: image_token_index is {shown(config.image_token_index)}, not a token"
    if not end_tokens(config.text_config):  # `generate` of the language model asks no other file
        yield "config.json: text_config.eos_token_id is null, so nothing would end a text (right: the token that ends one)"


def pixels(processor: Blip2Processor, image: Image) -> Rows:
    """(1, 3, height, width) float32."""
    return Rows(processor.image_processor(image, return_tensors="pt")["pixel_values"])


def image_stages(model: Blip2ForConditionalGeneration, where: torch.device) -> tuple[ImageStage, ...]:
    return Vision(model, where), Bridge(model)


def language(model: Blip2ForConditionalGeneration, processor: Blip2Processor, family: str) -> Language:
    inputs = QueriesFirst(model, processor.tokenizer.pad_token_id)
    return LANGUAGES[family](LanguageModel(model.language_model, processor.tokenizer, "language_model", inputs))
