"""BLIP-1's captioning model as a worker runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import BlipConfig, BlipForConditionalGeneration, BlipProcessor

from blip2sweep.models.bert import Captioner, TextDecoder
from blip2sweep.models.blip import over_graphs
from blip2sweep.models.blip.inputs import PictureStates
from blip2sweep.models.blip.processor import config_mistakes, read_processor
from blip2sweep.models.blip2.forward import Vision
from blip2sweep.models.blip2.model import pixels

if TYPE_CHECKING:
    from blip2sweep.models.architecture import ImageStage
    from blip2sweep.models.graphs import Graphs

__all__ = [
    "config_class", "config_mistakes", "graphs", "image_stages", "language", "model_class", "pixels", "read_processor",
]  # fmt: skip

config_class, model_class = BlipConfig, BlipForConditionalGeneration


def image_stages(model: BlipForConditionalGeneration, where: torch.device) -> tuple[ImageStage, ...]:
    return (Vision(model, where),)


def language(model: BlipForConditionalGeneration, processor: BlipProcessor, family: str) -> Captioner:
    return Captioner(TextDecoder(model.text_decoder, processor.tokenizer, "text_decoder", PictureStates(model)))


def graphs(model: BlipForConditionalGeneration, processor: BlipProcessor, family: str) -> Graphs:
    """See `HasGraphs`."""
    return over_graphs.captioning(model, language(model, processor, family))
