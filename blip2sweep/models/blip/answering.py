"""BLIP-1's question answering as a worker runs it.

The cross-attention sees no padding of a question, so an answer does not depend on its batch. transformers and the
authors' code let it see the padding: there an answer depends a little on the questions beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import BlipConfig, BlipForQuestionAnswering, BlipProcessor

from blip2sweep.models.bert import Answerer, TextDecoder, read_cross_masks
from blip2sweep.models.blip import over_graphs
from blip2sweep.models.blip.inputs import PictureStates, QuestionStates
from blip2sweep.models.blip.processor import config_mistakes, read_processor
from blip2sweep.models.blip2.forward import Vision
from blip2sweep.models.blip2.model import pixels

if TYPE_CHECKING:
    from blip2sweep.models.architecture import ImageStage
    from blip2sweep.models.graphs import Graphs

__all__ = [
    "config_class", "config_mistakes", "graphs", "image_stages", "language", "model_class", "pixels", "read_processor",
]  # fmt: skip

config_class, model_class = BlipConfig, BlipForQuestionAnswering


def image_stages(model: BlipForQuestionAnswering, where: torch.device) -> tuple[ImageStage, ...]:
    return (Vision(model, where),)


def language(model: BlipForQuestionAnswering, processor: BlipProcessor, family: str) -> Answerer:
    read_cross_masks(model.text_decoder)
    inputs = QuestionStates(model, processor.tokenizer.pad_token_id)
    return Answerer(TextDecoder(model.text_decoder, processor.tokenizer, "text_decoder", inputs))


def graphs(model: BlipForQuestionAnswering, processor: BlipProcessor, family: str) -> Graphs:
    """See `HasGraphs`."""
    return over_graphs.answering(model, language(model, processor, family), PictureStates(model).features)
