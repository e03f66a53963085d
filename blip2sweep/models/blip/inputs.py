"""What the text decoder of a BLIP-1 model reads by cross-attention: the picture, or the question read with the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blip2sweep.models.learning import inference
from blip2sweep.models.ragged import Rows
from blip2sweep.models.text import Ids, padded

if TYPE_CHECKING:
    from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering


class PictureStates:
    """`Inputs` (blip2sweep/models/text.py): image features. tokens: those of a picture, and room for a prompt."""

    alike = False  # no token of the decoder's stream is a picture's

    def __init__(self, model: BlipForConditionalGeneration | BlipForQuestionAnswering) -> None:
        self.model, vision = model, model.config.vision_config
        self.features = 1 + (vision.image_size // vision.patch_size) ** 2, vision.hidden_size
        self.tokens = self.features[0] + 32

    @inference
    def embed(self, pictures: Rows | None, prompts: Sequence[Ids], left: bool) -> tuple[Tensor, Tensor]:
        """States (batch, tokens, width) and their mask.

        Raises RuntimeError for pictures that are not as many image features as prompts.
        """
        assert pictures is not None
        features, right = pictures.values, (len(prompts), *self.features)
        if tuple(features.shape) != right:
            raise RuntimeError(f"image features {tuple(features.shape)} for {len(prompts)} prompts; right: {right}")
        words = self.model.text_decoder.get_input_embeddings().weight
        states = features.to(words.device, words.dtype)
        return states, torch.ones(states.shape[:2], dtype=torch.long, device=states.device)

    def pictured(self, text: Ids, tokens: int) -> list[bool]:
        return [False] * len(text)


class QuestionStates(PictureStates):
    """Questions as the text encoder reads them with their pictures."""

    def __init__(self, model: BlipForQuestionAnswering, pad: int) -> None:
        super().__init__(model)
        self.pad = pad

    @inference
    def embed(self, pictures: Rows | None, prompts: Sequence[Ids], left: bool) -> tuple[Tensor, Tensor]:
        states, seen = super().embed(pictures, prompts, left)
        ids, mask = padded(prompts, self.pad, left=False)
        ids, mask = ids.to(states.device), mask.to(states.device)
        read = self.model.text_encoder(
            input_ids=ids, attention_mask=mask, encoder_hidden_states=states, encoder_attention_mask=seen
        )
        return read.last_hidden_state, mask
